"""``wm data ls`` and ``wm data info``: what a store holds."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wm_core.cli.settings import parse
from wm_core.contract.errors import shown
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen
from wm_core.recordings.care.episodes import EpisodeFilter, episode_facts, stored_episodes
from wm_core.recordings.care.moments import moment, read_moment
from wm_core.recordings.care.place import explained, reading, store_at
from wm_core.recordings.care.sheet import data_sheet
from wm_core.recordings.care.sheet_page import acting, share, sheet_rows, write_sheet
from wm_core.store.episodes import StoredEpisode

_HASH = re.compile(r"\b[0-9a-f]{64}\b")
_TASK_WIDTH = 40  #: characters of a task in the table of episodes
_PIPE = 400  #: columns of a table that goes into a file or another program
_ENDS = {"terminal": "terminal", "last": "ended", "open": "goes on", "gap": "cut by a gap"}
Json = Annotated[bool, tyro.conf.arg(name="json")]


class StoreSettings(Frozen):
    """Names the store that is looked at."""

    root: Path = Field(description="Run folder, or the folder of a store itself")


class EpisodeOptions(StoreSettings):
    """Says which episodes are meant."""

    robot: str = Field("", description="Take only episodes of this robot")
    session: str = Field("", description="Take only this session, or those that begin so")
    task: str = Field("", description="Take only episodes whose task contains this text")
    since: str = Field(
        "", description="Take only what began then or later: 2026-11-30, 2026-11-30T14:05, or 3d, "
        "12h, 30m ago (UTC)"
    )  # fmt: skip
    until: str = Field("", description="Take only what began before then; written as --since")
    min_return: float | None = Field(None, description="Take only returns of at least this")
    max_return: float | None = Field(None, description="Take only returns of at most this")
    min_steps: int = Field(0, ge=0, description="Take only episodes of at least as many steps")
    version: int | None = Field(
        None, description="Take only episodes in which this policy version acted; -1: no policy"
    )
    interventions: bool = Field(False, description="Take only episodes with an intervention")
    terminal: bool = Field(False, description="Take only episodes that ended for good")

    @property
    def wanted(self) -> EpisodeFilter:
        """Give the rule of these options."""
        return EpisodeFilter(
            robot=self.robot, session=self.session, task=self.task,
            since_ns=read_moment(self.since, "--since"),
            until_ns=read_moment(self.until, "--until"),
            min_return=self.min_return, max_return=self.max_return, min_steps=self.min_steps,
            version=self.version, interventions=self.interventions, terminal=self.terminal,
        )  # fmt: skip


class DataLsSettings(EpisodeOptions):
    """List the episodes of a store: whose, when, how long, how good, how they ended.

    The name of an episode is the beginning of its session and its number there; `wm data show`
    takes it.  No image is unpacked, and nothing is written.
    """

    json_: Json = Field(False, description="Print one JSON object per episode")


class DataInfoSettings(StoreSettings):
    """Print the data sheet of a store: what it holds, who made it, and its hash.

    The hash names the set of chunks: two stores with the same chunks have the same one, in
    whatever order these arrived.
    """

    write: Path | None = Field(
        None,
        description="File that receives the sheet too: JSON if it ends in .json, else Markdown",
    )
    json_: Json = Field(False, description="Print the sheet as one JSON object")


def main(argv: Sequence[str], verb: str) -> int:
    """Run one of the two; returns the exit status."""
    if verb == "ls":
        return _list(parse(DataLsSettings, argv, verb="data ls"))
    return _describe(parse(DataInfoSettings, argv, verb="data info"))


def _list(settings: DataLsSettings) -> int:
    root, left_out = store_at(settings.root), Counter[str]()
    with reading(root) as ledger:
        found = stored_episodes(root, ledger, settings.wanted, left_out=left_out)
        if settings.json_:
            sys.stdout.writelines(json_text(episode_facts(e)) + "\n" for e in found)
        else:
            _print_episodes(root, list(found))
    if left_out:
        said = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        sys.stderr.write(f"chunks that cannot be read: {said}; wm data verify names them\n")
    return 0


def shortened(task: str) -> str:
    """Cut a long ``task`` for a cell of a table; `--json` has all of it."""
    return task if len(task) <= _TASK_WIDTH else f"{task[: _TASK_WIDTH - 3]}..."


def without_hashes(text: str) -> str:
    """Make one line of ``text`` in which hashes are cut, for a cell of a table."""
    return shown(_HASH.sub(lambda found: f"{found[0][:8]}...", text))


def table_console() -> Console:
    """Make a console whose tables are not cut where they go into a file or a program."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE)


def _print_episodes(root: Path, episodes: list[StoredEpisode]) -> None:
    if not episodes:
        sys.stderr.write(f"no such episodes in {root}\n")
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for head in ("episode", "robot", "task", "began (UTC)"):
        table.add_column(head, no_wrap=head != "task", overflow="fold")
    for head in ("steps", "seconds", "return"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("end")
    for head in ("by people", "invalid"):
        table.add_column(head, justify="right")
    table.add_column("policies")
    for e in episodes:
        end = _ENDS[e.end] + ("" if e.is_whole or e.end in ("open", "gap") else ", begun before")
        row = (
            e.name, e.robot, shortened(e.task), moment(e.start_ns),
            str(e.steps), f"{e.seconds:.1f}", f"{e.total:.4g}", end,
            str(e.interventions or ""), str(e.invalid or ""), _versions(e),
        )  # fmt: skip
        table.add_row(*(Text(shown(cell)) for cell in row), style="" if e.is_whole else "dim")
    table_console().print(table)
    steps, seconds = sum(e.steps for e in episodes), sum(e.seconds for e in episodes)
    Console(highlight=False).print(
        f"{len(episodes)} episodes, {steps} steps, {seconds / 3600:.3g} hours", markup=False
    )


def _versions(episode: StoredEpisode) -> str:
    names = ["none" if v == -1 else str(v) for v in sorted(episode.versions)]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} .. {names[-1]} ({len(names)})"


def _describe(settings: DataInfoSettings) -> int:
    root = store_at(settings.root)
    with reading(root) as ledger:
        sheet = data_sheet(root, ledger)
    if settings.write is not None:
        with explained(settings.write):
            write_sheet(sheet, settings.write)
    if settings.json_:
        sys.stdout.write(json_text(sheet.as_json()) + "\n")
        return 0
    console = table_console()
    facts = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in sheet_rows(sheet):
        facts.add_row(name, Text(shown(value)))
    console.print(facts)
    robots = {n: f"{f['episodes']} episodes, {f['steps']} steps" for n, f in sheet.robots.items()}
    for title, rows in (
        ("robot", robots),
        ("task", {t or "(none)": share(n, sheet.steps) for t, n in sheet.tasks.items()}),
        ("policy version", {acting(v): share(n, sheet.steps) for v, n in sheet.policies.items()}),
        ("never stored (steps)", _texts(sheet.left_out)),
        ("stored, not learnt from (steps)", _texts(sheet.invalid)),
        ("chunks that cannot be read", _texts(sheet.unreadable)),
    ):
        if rows:
            table = Table(title, "", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
            for key, text in rows.items():
                table.add_row(Text(shown(key)), Text(text))
            console.print()
            console.print(table)
    if settings.write is not None:
        console.print(f"written to {settings.write}", markup=False)
    return 0


def _texts(counts: dict[str, int]) -> dict[str, str]:
    return {name: str(count) for name, count in counts.items()}
