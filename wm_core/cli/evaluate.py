"""``wm evaluate``: print return, length and success of a policy with their 95 % bounds."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table

from wm_core.cli.settings import parse
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen
from wm_core.library.evaluate import FILMED, evaluate, evaluate_runs
from wm_core.training.device import Device
from wm_core.training.evaluate import MAX_EPISODE_STEPS
from wm_core.training.returns import Evaluation, RunsEvaluation
from wm_core.training.settings import EnvConfig


class EvaluateSettings(Frozen):
    """Run whole episodes of a task and report return, length and success with 95 % bounds.

    Name exactly one of --policy, --run, --random and --expert.
    """

    policy: Path | None = Field(
        None, description="Folder (or .onnx file) of an exported policy to evaluate"
    )
    run: tuple[Path, ...] = Field(
        (), description="Run folder; of several, a table with bounds over runs"
    )
    random: bool = Field(False, description="Evaluate uniform random actions")
    expert: bool = Field(False, description="Evaluate the task's scripted expert")
    version: str = Field(
        "newest",
        description="With --run: newest, best, or a policy's number (a checkpoint's: its updates)",
    )
    checkpoint: bool = Field(
        False, description="With --run: evaluate the training network, not the exported policy"
    )
    task: str = Field(
        "", description="Task to run, where the policy does not name one; see `wm tasks`"
    )
    episodes: int = Field(10, gt=0, description="Number of episodes to run, 1 or more")
    envs: int = Field(1, gt=0, description="Environments that act side by side, 1 or more")
    seed: int = Field(
        0, ge=0, description="Seed of the episodes and of all draws, whatever --envs is"
    )
    max_episode_steps: int = Field(
        MAX_EPISODE_STEPS, gt=0, description="Agent steps after which an episode is cut"
    )
    films: Path | None = Field(
        None, description="Folder for films (GIF) of the first episodes; None: no films"
    )
    film_episodes: int = Field(FILMED, gt=0, description="With --films: episodes to film")
    sample: bool = Field(
        False, description="Draw actions as in training, instead of taking their mean"
    )
    device: Device = Field("auto", description="Device of the training network")
    env: EnvConfig = EnvConfig()
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print one JSON object instead of text"
    )


def main(argv: Sequence[str]) -> int:
    """Evaluate and report; returns the exit status."""
    settings = parse(EvaluateSettings, argv, verb="evaluate")
    options: dict[str, Any] = settings.model_dump(exclude={"json_", "run", "env"})
    options["env"] = settings.env
    progress = Console(stderr=True, quiet=not Console(stderr=True).is_terminal)
    result: Evaluation | RunsEvaluation
    with progress.status("evaluating") as line:
        options["on_episode"] = lambda n, r: line.update(
            f"{n}/{settings.episodes} episodes, {r:.4g}"
        )
        if len(settings.run) > 1:
            result = evaluate_runs(settings.run, **options)
        else:
            result = evaluate(run=settings.run[0] if settings.run else None, **options)
    out = Console(soft_wrap=True, highlight=False)
    if settings.json_:
        out.print(json_text(result.summary()), markup=False)
    elif isinstance(result, Evaluation):
        _print_one(out, result)
    else:
        _print_runs(out, result)
    if settings.films is not None and not settings.json_:
        out.print(f"films in {settings.films}", markup=False)
    return 0


def _print_one(out: Console, result: Evaluation) -> None:
    _print_notes(result.notes)
    out.print(f"{result.actor} on {result.task}: {len(result.returns)} episodes", markup=False)
    spread = f"sd {_number(result.sd)}, {_bounds(*result.bounds)}"
    out.print(f"return {_number(result.mean)}  ({spread})")
    endings = [e.ending for e in result.episodes]
    kinds = ", ".join(f"{endings.count(kind)} {kind}" for kind in dict.fromkeys(endings))
    out.print(f"length {_number(result.mean_length)}  ({kinds})")
    if result.success is not None:
        low, high = result.success_bounds
        out.print(f"success {result.success:.0%}  (95 %: {low:.0%} .. {high:.0%})")


def _print_runs(out: Console, result: RunsEvaluation) -> None:
    table = Table("run", "episodes", "return", "95 %", "length", "success", box=None)
    for run, one in zip(result.runs, result.results, strict=True):
        _print_notes([f"{run}: {note}" for note in one.notes])
        low, high = map(_number, one.bounds)
        success = "" if one.success is None else f"{one.success:.0%}"
        count, mean, length = str(len(one.returns)), _number(one.mean), _number(one.mean_length)
        table.add_row(run, count, mean, f"{low} .. {high}", length, success)
    out.print(table)
    told = _bounds(*result.bounds)
    out.print(f"return {_number(result.mean)} over {len(result.runs)} runs  ({told})")


def _bounds(low: float, high: float) -> str:
    if not math.isfinite(low):
        return "no bounds: more than one is needed"
    return f"95 % of the mean {_number(low)} .. {_number(high)}"


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        sys.stderr.write(f"wm evaluate: {note}\n")


def _number(value: float) -> str:
    """Four significant digits, and no exponent where a number is large."""
    large = math.isfinite(value) and abs(value) >= 10_000
    return f"{value:.0f}" if large else f"{value:.4g}"
