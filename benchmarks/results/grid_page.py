"""The section of docs/results.md on the grid of backbones: a table and two plots for each task."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results.cells import each, way_to_expert
from benchmarks.results.comparison import BACKBONES, LATENTS
from benchmarks.results.plot import figure_of, save
from wm_core.training.returns import t_interval

Row = Mapping[str, Any]
Group = Sequence[Row]  #: the rows of one cell, a seed each

FOLDER = "backbones"
YARDSTICKS = "yardsticks.json"
POSTERIORS = {"rssm": "q(z given h, e)"}
HEAD = (
    "| backbone | posterior | latent | return over seeds, 95 % bounds | each seed "
    "| of the way to the expert | weights | updates | s/update | step p50 / p99 | carry | file |"
)


def section(grid: Path, beside: Path) -> str:
    """The text on the grid whose tasks are folders of ``grid``, for a page in ``beside``."""
    parts = ["## One agent, its backbone exchanged", conditions(grid)]
    every: list[Row] = []
    for sticks_path in sorted(grid.glob(f"*/{YARDSTICKS}")):
        rows, sticks = read(sticks_path.parent)
        every += [row for row in rows if row["failed"] is None]
        parts += [f"### On `{sticks['place']}`", table(groups_of(rows), sticks)]
        parts += [
            f"**`{row['label']}`, seed {row['seed']}, failed**: {row['failed']}."
            for row in rows
            if row["failed"] is not None
        ]
        good = groups_of([row for row in rows if row["failed"] is None])
        if good:
            curves = sticks_path.parent / "curves.png"
            draw_curves(good, sticks, curves)
            parts.append(_picture(f"Training returns on {sticks['place']}", curves, beside))
            fading = sticks_path.parent / "gradient.png"
            draw_gradients(good, f"{sticks['place']}: d reward[k] / d action[0]", fading)
            parts.append(_picture(f"Gradients on {sticks['place']}", fading, beside))
    if every:
        parts.append(commands(every))
    return "\n\n".join(parts) + "\n"


def read(folder: Path) -> tuple[list[Row], Row]:
    """The rows in ``folder`` and its yardsticks."""
    sticks = json.loads((folder / YARDSTICKS).read_text())
    paths = [p for p in sorted(folder.glob("*.json")) if p.name != YARDSTICKS]
    return [json.loads(p.read_text()) for p in paths], sticks


def groups_of(rows: Sequence[Row]) -> dict[str, Group]:
    """Rows by their cell, in the order of the grid, without the failed ones of a cell."""
    names = [f"{backbone}-{latent}" for latent in LATENTS for backbone in BACKBONES]
    found = {n: [r for r in rows if r["label"] == n and r["failed"] is None] for n in names}
    return {name: group for name, group in found.items() if group}


# ------------------------------------------------------------------------------------ text


def conditions(grid: Path) -> str:
    """Under what circumstances the rows were made, in a paragraph."""
    rows = [r for p in sorted(grid.glob(f"*/{YARDSTICKS}")) for r in read(p.parent)[0]]
    if not rows:
        return "No row yet."
    loads = [value for row in rows for value in row["load"]]
    return (
        "`rssm` is a GRU whose posterior reads the past, `gru` the same cell with a posterior of "
        "the embedding alone, as transformer and state space have it. Encoder, decoder, heads, "
        "losses, actor, critic, dreams, windows (8 of 32 steps that begin without a past), "
        "optimiser and updates per step are equal, weights within a tenth; what differs is in "
        f"`benchmarks/results/comparison.py`. {each(rows, 'minutes')} minutes of CPU time each on "
        "one thread, collection included. Returns are of the exported file's mean action over "
        f"{each([r['trained'] for r in rows if not r['failed']], 'episodes')} episodes that no "
        "training saw; the bounds are Student's t over the means of the seeds, two-sided 95 %. "
        "Steps were paced at 20 Hz on one thread. "
        f"{each(rows, 'cpu')}, {each(rows, 'jobs')} side by side, load {min(loads):.1f} .. "
        f"{max(loads):.1f}; commits {each(rows, 'commit')}; {each(rows, 'date')}."
    )


def table(groups: Mapping[str, Group], sticks: Row) -> str:
    """Cells and yardsticks, best first, as Markdown."""
    lines = [(mean_of(group), _line(name, group, sticks)) for name, group in groups.items()]
    for name in ("random", "expert"):
        if (stick := sticks[name]) is not None:
            cells = [
                f"*{name}*",
                "",
                "",
                f"{stick['mean']:.1f}",
                "",
                way_to_expert(stick["mean"], sticks),
            ]
            lines.append((stick["mean"], _cells([*cells, *[""] * 6])))
    body = [line for _, line in sorted(lines, key=lambda pair: -pair[0])]
    return "\n".join([HEAD, "|" + "---|" * 12, *body])


def mean_of(group: Group) -> float:
    """Mean return over the seeds."""
    return float(np.mean([row["trained"]["mean"] for row in group]))


def _line(name: str, group: Group, sticks: Row) -> str:
    backbone, latent = name.split("-")
    means = [row["trained"]["mean"] for row in group]
    low, high = t_interval(means)
    mean = mean_of(group)
    bounds = f" ({low:.1f} .. {high:.1f})" if len(means) > 1 else ""
    p50, p99 = (_middle(group, lambda r, q=q: r["latency"][q]) for q in ("p50_ms", "p99_ms"))
    cost = [row["cpu_s_per_update"] for row in group if row["cpu_s_per_update"]]
    return _cells(
        [
            f"`{backbone}`",
            POSTERIORS.get(backbone, "q(z given e)"),
            latent,
            f"{mean:.1f}{bounds}",
            ", ".join(f"{m:.1f}" for m in means),
            way_to_expert(mean, sticks),
            f"{_middle(group, lambda r: r['parameters']) / 1e6:.2f} M",
            f"{_middle(group, lambda r: r['updates']):,.0f}",
            f"{np.median(cost):.3f}" if cost else "",
            f"{p50:.2f} / {p99:.2f} ms",
            f"{_middle(group, lambda r: r['carry_bytes']) / 1e3:,.1f} kB",
            f"{_middle(group, lambda r: r['file_bytes']) / 1e6:.1f} MB",
        ]
    )


def commands(rows: Sequence[Row]) -> str:
    """How the rows were made, as a block of commands: one of each cell, any seed."""
    made: dict[str, None] = {}
    for row in rows:
        words = row["command"].replace(f"{row['label']}-{row['seed']}", f"{row['label']}-SEED")
        made.setdefault(re.sub(r"--seed \d+", "--seed SEED", words))
    first = "python -m benchmarks.results --grid backbones --seeds 0 1 2"
    return "```\n" + "\n".join([first, *made]) + "\n```"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _middle(group: Group, value: Callable[[Row], float]) -> float:
    return float(np.median([value(row) for row in group]))


def _picture(what: str, path: Path, beside: Path) -> str:
    return f"![{what}]({os.path.relpath(path, beside)})"


# ------------------------------------------------------------------------------------ plots


def style_of(name: str) -> dict[str, Any]:
    """Colour of the backbone and dashes of the latent of a cell."""
    backbone, latent = name.split("-")
    inks = ("#1f77b4", "#2ca02c", "#d62728", "#9467bd")
    dashes = ("-", "--")
    return {
        "color": inks[[*BACKBONES].index(backbone)],
        "ls": dashes[[*LATENTS].index(latent)],
        "lw": 1.8,
    }


def draw_curves(groups: Mapping[str, Group], sticks: Row, path: Path) -> None:
    """Write the training curves as a PNG: every seed, a colour for each backbone."""
    figure, axes = figure_of()
    for name, group in groups.items():
        for n, row in enumerate(group):
            curve = row["curve"]
            label = None if n else name
            axes.plot(curve["cpu_minutes"], curve["return"], label=label, **style_of(name))
    for name, ink in (("expert", "#1f2933"), ("random", "#7b8794")):
        if sticks[name] is not None:
            axes.axhline(sticks[name]["mean"], color=ink, lw=1.2, ls=":", label=name)
    window = next(iter(groups.values()))[0]["curve"]["window"]
    axes.set_xlim(left=0)
    axes.set_xlabel("minutes of CPU time on one thread")
    axes.set_ylabel(f"return of training episodes, mean of {window}")
    axes.set_title(f"{sticks['place']}: one agent, its backbone exchanged", loc="left")
    save(figure, axes, path)


def draw_gradients(groups: Mapping[str, Group], title: str, path: Path) -> None:
    """Write norms of d reward[k] / d action[0] over k as a PNG: medians over seeds, log scale."""
    figure, axes = figure_of()
    for name, group in groups.items():
        norms = np.median([row["gradient"] for row in group], axis=0)
        axes.plot(range(1, len(norms) + 1), norms, label=name, **style_of(name))
    axes.set_yscale("log")
    axes.set_xlabel("steps k from the action to the reward")
    axes.set_ylabel("norm of the gradient, median over dreams")
    axes.set_title(title, loc="left")
    save(figure, axes, path)
