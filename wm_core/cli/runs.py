"""``wm runs``: list the training runs of a folder and how each one is doing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wm_core.cli.settings import parse
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen
from wm_core.library.runs import ENDED, RunFacts, age, list_runs

_WIDE = 110  #: columns from which a table shows everything
_PIPE = 400  #: columns of a table that goes into a file or another program

Sort = Literal["name", "when", "return", "best", "steps", "updates", "cpu"]
_KEYS: dict[str, str] = {
    "when": "reported", "return": "last_return", "best": "best", "steps": "agent_steps",
    "updates": "updates", "cpu": "cpu_s",
}  # fmt: skip


class RunsSettings(Frozen):
    """List training runs: what is trained, how far, its returns, and whether it still works.

    State is what a working process does (starting, collecting, waiting, training, evaluating) or
    how it ended: done, stopped, diverged, failed, or killed.  Folders that are no
    runs are foreign; runs whose files cannot be read are damaged.  Nothing is made or changed.
    """

    root: tyro.conf.Positional[Path] = Field(
        Path("runs"), description="Folder of runs, looked into four folders deep; or one run"
    )
    sort: Sort = Field("name", description="Order by this: names upwards, all else downwards")
    state: str = Field("", description="List only runs in this state; alive: any that works")
    task: str = Field("", description="List only runs whose task contains this text")
    preset: str = Field("", description="List only runs of this preset")
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print one JSON object per run"
    )


def main(argv: Sequence[str]) -> int:
    """List the runs; returns the exit status."""
    settings = parse(RunsSettings, argv, verb="runs")
    runs = ordered(filter(lambda run: _wanted(run, settings), list_runs(settings.root)), settings)
    if settings.json_:
        sys.stdout.writelines(json_text(run.as_json()) + "\n" for run in runs)
        return 0
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE)
    if runs:
        console.print(_table(runs, wide=console.width >= _WIDE))
    else:
        sys.stderr.write(f"no such runs in {settings.root}\n")
    return 0


def ordered(runs: Sequence[RunFacts] | filter[RunFacts], settings: RunsSettings) -> list[RunFacts]:
    """``runs`` in the order that is asked for; those that lack the number come last."""
    listed = sorted(runs, key=lambda run: run.name)
    if settings.sort == "name":
        return listed

    def key(run: RunFacts) -> tuple[bool, float]:
        value = getattr(run, _KEYS[settings.sort])
        return (value is None, -(value or 0.0))

    return sorted(listed, key=key)


def _wanted(run: RunFacts, settings: RunsSettings) -> bool:
    alive = settings.state == "alive" and run.pid is not None
    return (
        (not settings.state or alive or run.state == settings.state)
        and settings.task in run.task
        and settings.preset in ("", run.preset)
    )


def _table(runs: Sequence[RunFacts], *, wide: bool) -> Table:
    """A row for each run; a narrow table leaves out what is marked so."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    heads: tuple[tuple[str, bool], ...] = (
        ("run", True), ("system", wide), ("task", True), ("state", True), ("steps", True),
        ("updates", wide), ("return", True), ("best", True), ("CPU", True), ("wall", wide),
        ("policy", wide), ("ago", True),
    )  # fmt: skip
    for head, shown in heads:
        words = head in ("run", "system", "task")
        left = words or head == "state"
        if shown:
            table.add_column(
                head,
                overflow="fold",
                no_wrap=not words,
                justify="left" if left else "right",
            )
    for run in runs:
        cells = (
            run.name,
            f"{run.preset} {run.size}",
            run.task or run.note,
            run.state,
            _short(run.agent_steps),
            _short(run.updates),
            _figure(run.last_return),
            _figure(run.best),
            _clock(run.cpu_s),
            _clock(run.wall_s),
            "" if run.policy is None else str(run.policy),
            age(run.reported),
        )
        row = zip(heads, cells, strict=True)
        table.add_row(
            *(
                Text(cell, style=_style(run) if head == "state" else "")
                for (head, shown), cell in row
                if shown
            )
        )
    return table


def _style(run: RunFacts) -> str:
    if run.pid is not None:
        return "green"
    if run.state in ("diverged", "failed", "killed", "damaged"):
        return "red"
    return "" if run.state in ENDED else "dim"


def _short(count: int | None) -> str:
    """A count in at most six characters: 940, 12.3k, 1.20M."""
    if count is None:
        return ""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(count) >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}:{minutes:02d}"
