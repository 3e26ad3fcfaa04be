"""Draw how far back the gradient of a dreamt reward reaches, by how a model reads the past.

Ma et al. 2024 (arXiv:2402.05290) hold that models which read the start and the actions alone give
better policy gradients than recurrent ones and ones that read a history of states.  This measures
one side of it: the norm of d reward[k] / d action[0] over k, in dreams with random actions.

    python -m benchmarks.reward_gradient --to plot.png                        # untrained presets
    python -m benchmarks.reward_gradient --to plot.png --seeds 0 1 2 --relative
    python -m benchmarks.reward_gradient --to plot.png --runs runs/a runs/b   # trained

Untrained networks have no reward yet: a random direction of what their heads read stands for it;
only the shape over k means something then, and ``--relative`` divides by the norm of k = 1.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import tyro
from pydantic import Field

from benchmarks.results.plot import figure_of, save
from wm_core.bench.gradient import GradientBenchSettings, measured
from wm_core.bench.report import Report


class Settings(GradientBenchSettings):
    """Draw the norm of a dreamt reward's gradient to the action k steps before it."""

    to: Path = Field(description="PNG to write")
    seeds: tuple[int, ...] = Field((0,), description="Seeds; medians over them are drawn")
    relative: bool = Field(False, description="Divide by the norm of the first step")


def main(settings: Settings) -> int:
    """Measure, print and draw; returns the exit status."""
    torch.set_num_threads(1)
    found: dict[str, list[np.ndarray]] = {}
    with Report("reward gradient", as_json=settings.json_) as report:
        for seed in settings.seeds:
            for name, _, norms in measured(settings.model_copy(update={"seed": seed}), report):
                found.setdefault(name, []).append(norms.median(0).values.numpy())
        curves = {name: np.median(each, axis=0) for name, each in found.items()}
        if settings.relative:
            curves = {name: curve / curve[0] for name, curve in curves.items()}
        for name, curve in curves.items():
            for k, norm in enumerate(curve.tolist(), 1):
                report.add(f"gradient/{name}/step_{k}", norm, "")
    draw(curves, settings.to, relative=settings.relative)
    return 0


def draw(curves: Mapping[str, np.ndarray], to: Path, *, relative: bool) -> None:
    """Write ``curves``, name -> (H,) norms, as a PNG with a logarithmic axis."""
    figure, axes = figure_of()
    for name, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, lw=1.8, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("steps k from the action to the reward")
    axes.set_ylabel("norm, over that of k = 1" if relative else "norm of the gradient")
    axes.set_title("d reward[k] / d action[0] in dreams, medians", loc="left")
    save(figure, axes, to)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Settings, prog="python -m benchmarks.reward_gradient")))
