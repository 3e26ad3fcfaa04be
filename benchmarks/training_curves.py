"""Draw the returns of trainings over time, beside a peer's, and keep what is drawn as numbers.

The figure of ``DATA.json`` is ``DATA.png`` beside it.  The numbers are committed with it, so that
a figure can be drawn again, and a curve be added, without the runs of the others.

    python -m benchmarks.training_curves --data DATA.json
    python -m benchmarks.training_curves --data DATA.json --curve "seed 2" --run RUN --evaluated F

The first draws; the second first puts the run's returns in as one more curve, or in place of the
curve of that name.  ``F`` is what ``wm evaluate --run RUN --checkpoint --json`` printed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from pydantic import BaseModel, Field

from benchmarks.results.plot import figure_of, save
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen

EPISODES = 10  #: whose mean is a point of a curve
EVERY = 2  #: of these points one is kept


class Evaluation(BaseModel):
    """The mean action's return at a moment, with half the width of its 95 % bounds."""

    minutes: float
    mean: float
    half: float


class Curve(BaseModel):
    """Returns over minutes, of one training or of a peer's runs."""

    name: str
    minutes: list[float]
    returns: list[float]
    evaluations: list[Evaluation] = []


class Figure(BaseModel):
    """What ``DATA.json`` holds."""

    title: str
    minutes_of: Literal["clock", "cpu"] = "cpu"
    axis: str = "CPU minutes"
    goal: float | None = None
    curves: list[Curve] = []
    peer: Curve | None = None


class Settings(Frozen):
    """Draw returns of trainings over time; put a run's returns in first, if one is named."""

    data: Path = Field(description="JSON with the curves; the PNG is written beside it")
    curve: str | None = Field(None, description="Name of the curve that --run is put in as")
    run: Path | None = Field(None, description="Run folder whose returns are put in")
    evaluated: Path | None = Field(
        None, description="What `wm evaluate --json` printed of the run: the end of its curve"
    )


def main(settings: Settings) -> int:
    """Put the run in, if one is named, and draw; returns the exit status."""
    figure = Figure.model_validate_json(settings.data.read_text())
    if (settings.run is None) != (settings.curve is None):
        sys.exit("training_curves: --curve and --run go together: the one names the other's curve")
    if settings.run is not None and settings.curve is not None:
        curve = curve_of(settings.run, settings.curve, figure.minutes_of)
        if settings.evaluated is not None:
            found = json.loads(settings.evaluated.read_text())
            half = (found["high"] - found["low"]) / 2
            end = Evaluation(minutes=curve.minutes[-1], mean=found["mean"], half=half)
            curve.evaluations.append(end)
        others = [each for each in figure.curves if each.name != curve.name]
        figure.curves = sorted([*others, curve], key=lambda each: each.name)
        settings.data.write_text(json_text(figure.model_dump()) + "\n")
    draw(figure, settings.data.with_suffix(".png"))
    return 0


def curve_of(run: Path, name: str, minutes_of: str) -> Curve:
    """Read a run's training returns: at every other episode the mean of the last ten.

    Minutes of the clock count from the start of the program, as far as its first line tells: what
    it took until then is taken from its CPU time.  They mean nothing for a run that was resumed.
    """
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    began = rows[0]["time"] - rows[0]["cpu_s"]
    rows = [row for row in rows if row.get("episode/return") is not None]
    if len(rows) < EPISODES:
        sys.exit(f"training_curves: expected {EPISODES} episodes in {run}, got {len(rows)}")
    seconds = [row["time"] - began if minutes_of == "clock" else row["cpu_s"] for row in rows]
    returns = np.convolve(
        [row["episode/return"] for row in rows],
        np.full(EPISODES, 1 / EPISODES),
        "valid",
    )
    drawn = slice(None, None, EVERY)
    return Curve(
        name=name,
        minutes=[round(x / 60, 2) for x in seconds[EPISODES - 1 :]][drawn],
        returns=[round(float(y), 1) for y in returns][drawn],
    )


def draw(figure: Figure, to: Path) -> None:
    """Write ``figure`` as a PNG: lines of training episodes, points with bounds of evaluations."""
    from matplotlib import colormaps

    drawing, axes = figure_of()
    for curve, colour in zip(figure.curves, colormaps["tab10"](range(10)), strict=False):
        axes.plot(curve.minutes, curve.returns, color=colour, lw=1.6, label=curve.name)
        for end in curve.evaluations:
            axes.errorbar(
                [end.minutes], [end.mean], yerr=[end.half], fmt="o", ms=5, capsize=3, color=colour
            )
    if figure.peer is not None:
        peer = figure.peer
        axes.plot(peer.minutes, peer.returns, color="0.45", lw=1.2, ls="--", label=peer.name)
    if figure.goal is not None:
        axes.axhline(figure.goal, color="0.6", lw=0.8, ls=":", label="goal")
    axes.set(xlabel=figure.axis, ylabel="return", ylim=(0, None))
    axes.set_title(figure.title, loc="left")
    save(drawing, axes, to)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, prog="python -m benchmarks.training_curves")))
