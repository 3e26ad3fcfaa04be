"""``wm sweep``: train over seeds and settings on all cores, evaluate, and compare."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wm_core.cli import train
from wm_core.cli.screen import complain
from wm_core.cli.settings import parse_known
from wm_core.contract.errors import SettingsError, shown
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen
from wm_core.library.sweep import Member, Progress, Sweep, plan, refused

INTERRUPTED = 130  #: exit status of a sweep that was stopped
FAILED = 1  #: ... some of whose runs failed


class SweepSettings(Frozen):
    """Train over seeds and settings, each run a process, then evaluate and compare them.

    All further options are those of `wm train`, the same for every run.  The same command goes on
    where the last one stopped; Ctrl-C leaves a checkpoint of every run.
    """

    task: tuple[str, ...] = Field(description="Tasks to train on; see `wm tasks`")
    root: Path = Field(description="Folder of the sweep, with a run folder for each member")
    preset: tuple[str, ...] = Field(
        ("dreamer_v3",), description="Systems to train; `wm presets` lists them"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), description="Seeds of the runs of each setting")
    set_: Annotated[tuple[str, ...], tyro.conf.arg(name="set")] = Field(
        (), description="Options with the values to try, such as train.replay-ratio=16,64"
    )
    jobs: int | None = Field(
        None, gt=0, description="Runs side by side, one core each; None: as many as cores"
    )
    episodes: int = Field(10, gt=0, description="Episodes of each run's evaluation, 1 or more")
    eval_seed: int = Field(1_000_000, ge=0, description="Seed of these episodes, for every run")
    version: str = Field("newest", description="Policy that is evaluated: newest or best")
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print one JSON object at the end instead of a table"
    )


def main(argv: Sequence[str]) -> int:
    """Run the sweep; 0 when every run is trained and evaluated, 1 where some failed."""
    settings, more = parse_known(SweepSettings, argv, verb="sweep")
    members = _checked(settings, more)
    stop = threading.Event()
    sweep = Sweep(
        settings.root,
        members,
        jobs=settings.jobs or len(os.sched_getaffinity(0)),
        evaluate=_evaluation(settings, more),
    )
    with train.stopping(stop), sweep, _view(settings) as show:
        sweep.run(stop, show)
    failed = [p for p in sweep.progress.values() if p.state == "failed"]
    if settings.json_:
        sys.stdout.write(json_text(_summary(sweep)) + "\n")
    else:
        Console(highlight=False).print(_results(sweep))
    for progress in failed:
        complain(f"{progress.member.name} failed: {progress.error}")
    if stop.is_set():
        complain("stopped; the same command goes on")
        return INTERRUPTED
    return FAILED if failed else 0


def _checked(settings: SweepSettings, more: Sequence[str]) -> list[Member]:
    """The members, after the options of each setting were read as ``wm train`` would."""
    reasons = list(refused(more))
    if reasons:
        raise SettingsError("; ".join(reasons))
    if "--threads" not in {word.partition("=")[0] for word in more}:
        more = [*more, "--threads", "1"]
    members = plan(settings.task, settings.preset, settings.seeds, settings.set_, more)
    if not members:
        raise SettingsError("expected at least one task, preset and seed, got none")
    for member in {member.setting: member for member in members}.values():
        train.train_settings([*member.words, "--run", str(settings.root / member.name)])
    return members


def _evaluation(settings: SweepSettings, more: Sequence[str]) -> list[str]:
    """Options of ``wm evaluate`` for every run."""
    words = ["--episodes", str(settings.episodes), "--seed", str(settings.eval_seed)]
    words += ["--version", settings.version]
    device = [i for i, word in enumerate(more) if word == "--device"]
    return words + (["--device", more[device[-1] + 1]] if device else [])


@contextmanager
def _view(settings: SweepSettings) -> Iterator[Callable[[Mapping[str, Progress]], None]]:
    """A live table on a terminal; elsewhere a line when a run begins or ends."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            yield lambda progress: live.update(_live(progress, console.height - 4))
        return
    seen: dict[str, str] = {}

    def show(progress: Mapping[str, Progress]) -> None:
        for name, member in progress.items():
            if member.state not in ("waiting", seen.get(name)):
                seen[name] = member.state
                done = sum(p.state in ("done", "failed") for p in progress.values())
                sys.stderr.write(f"{name}: {member.state} ({done} of {len(progress)} ended)\n")

    yield show


def _live(progress: Mapping[str, Progress], rows: int) -> Table:
    states = [p.state for p in progress.values()]
    counts = ", ".join(f"{states.count(s)} {s}" for s in dict.fromkeys(states))
    table = Table(
        "run", "state", box=SIMPLE_HEAD, show_edge=False, title=f"{len(states)} runs: {counts}",
        title_justify="left",
    )  # fmt: skip
    for head in ("updates", "steps", "return", "evaluated"):
        table.add_column(head, justify="right")
    rank = {"training": 0, "evaluating": 0, "failed": 1, "elsewhere": 1, "done": 2}
    chosen = sorted(progress.values(), key=lambda p: rank.get(p.state, 3))[: max(1, rows)]
    for one in chosen:
        status = one.status
        cells = [status.get("updates"), status.get("agent_steps"), status.get("last_return")]
        table.add_row(one.member.name, one.state, *map(_cell, [*cells, one.mean]))
    return table


def _results(sweep: Sweep) -> Table:
    heads = ("setting", "seeds", "return", "95 %", "each seed")
    table = Table(*heads, box=SIMPLE_HEAD, show_edge=False)
    for result in sweep.results():
        if not result.means:
            table.add_row(Text(result.setting), "0", "", "", "")
            continue
        low, high = (_cell(bound) for bound in result.bounds)
        each = " ".join(_cell(mean) for mean in result.means)
        bounds = f"{low} .. {high}" if len(result.means) > 1 else ""
        table.add_row(
            Text(result.setting), str(len(result.means)), _cell(result.mean), bounds, each
        )
    return table


def _summary(sweep: Sweep) -> dict[str, Any]:
    settings = []
    for result in sweep.results():
        low, high = result.bounds if result.means else (None, None)
        settings.append(
            {
                "setting": result.setting,
                "seeds": list(result.seeds),
                "means": list(result.means),
                "mean": result.mean if result.means else None,
                "low": low,
                "high": high,
            }
        )
    runs = [
        {
            "run": str(sweep.root / name),
            "setting": p.member.setting,
            "seed": p.member.seed,
            "state": p.state,
            "error": p.error,
            "mean": p.mean,
            "evaluation": p.evaluation,
        }
        for name, p in sweep.progress.items()
    ]
    return {"root": str(sweep.root), "settings": settings, "runs": runs}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else shown(value, 20)
