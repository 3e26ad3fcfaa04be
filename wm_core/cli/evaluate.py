"""``wm evaluate``: print the mean return of a policy with its 95 % bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.settings import parse
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen
from wm_core.library.evaluate import evaluate
from wm_core.training.device import Device


class EvaluateSettings(Frozen):
    """Run whole episodes of a task and report the mean return with its 95 % bounds.

    Name exactly one of --policy, --run, --random and --expert.
    """

    policy: Path | None = Field(
        None, description="Folder (or .onnx file) of an exported policy to evaluate"
    )
    run: Path | None = Field(
        None, description="Run folder: its newest policy, or else its newest checkpoint"
    )
    random: bool = Field(False, description="Evaluate uniform random actions")
    expert: bool = Field(False, description="Evaluate the task's scripted expert")
    task: str = Field(
        "", description="Task to run, where the policy does not name one; see `wm tasks`"
    )
    episodes: int = Field(10, gt=0, description="Number of episodes to run, 1 or more")
    seed: int = Field(0, ge=0, description="Seed of the episodes and of the policy's draws")
    sample: bool = Field(
        False, description="Draw actions as in training, instead of taking their mean"
    )
    checkpoint: bool = Field(
        False, description="With --run: evaluate the training network, not the exported policy"
    )
    device: Device = Field("auto", description="Device of the training network")
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print one JSON object instead of text"
    )


def main(argv: Sequence[str]) -> int:
    """Evaluate and report; returns the exit status."""
    settings = parse(EvaluateSettings, argv, verb="evaluate")
    progress = Console(stderr=True, quiet=not Console(stderr=True).is_terminal)
    with progress.status("evaluating") as line:
        result = evaluate(
            **settings.model_dump(exclude={"json_"}),
            on_episode=lambda n, r: line.update(f"{n}/{settings.episodes} episodes, {r:.1f}"),
        )
    out = Console(soft_wrap=True, highlight=False)
    if settings.json_:
        summary = {"task": result.task, "policy": result.actor} | result.summary()
        out.print(json_text(summary), markup=False)
        return 0
    low, high = result.bounds
    out.print(f"{result.actor} on {result.task}: {len(result.returns)} episodes", markup=False)
    spread = f"(sd {result.sd:.1f}, 95 % of the mean {low:.1f} .. {high:.1f})"
    out.print(f"return {result.mean:.1f}  {spread}")
    return 0
