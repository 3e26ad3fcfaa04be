"""``wm data export``: write stored experience as files that other programs read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Frozen
from wm_core.recordings.care.place import store_at
from wm_core.recordings.outgoing.choice import ORDER_TEXT, ExportChoice, SessionOrder
from wm_core.recordings.outgoing.export import Exported, export_store
from wm_core.recordings.outgoing.unfinished import MIN_FREE_BYTES
from wm_core.store.disk import size_text

_EVERY_STEPS = 50  # between two looks of the progress bar


class DataExportSettings(Frozen):
    """Write stored experience as a LeRobot dataset, as bags, or as archives of NumPy.

    The store is only read, also while a trainer writes to it; what arrives meanwhile is left for
    the next time.  The folder appears when it is whole, and what stands there already is never
    touched.  Images stay exact to the pixel, unless --video is given.
    """

    to: Path = Field(description="Folder that takes the files; it must not be there yet")
    format: Literal["lerobot", "rosbag2", "mcap", "npz"] = Field(
        description=(
            "What is written: a LeRobotDataset v3.0; a rosbag2 (MCAP storage) or an MCAP file for "
            "each session; an archive of NumPy for each episode"
        )
    )
    root: Path | None = Field(None, description="Run folder whose store is read, or a store")
    store: Path | None = Field(None, description="Folder of the store itself, in place of --root")
    robots: tuple[str, ...] = Field(
        (), description="Robots that are exported; all if none is named"
    )
    sessions: tuple[str, ...] = Field(
        (), description="Sessions that are exported, by the first digits of their names"
    )
    episodes: str = Field(
        "",
        description="Episodes that are exported: numbers from 0 on in the order of the export, as "
        "in 0-9,12,20-, or names that wm data ls gives, as in 3fa94c01.12; all if none is named",
    )
    order: SessionOrder = Field("arrival", description=ORDER_TEXT)
    video: bool = Field(
        False, description="Colour cameras become lossy H.264 video, in a LeRobot dataset alone"
    )
    min_free_bytes: int = Field(
        MIN_FREE_BYTES, ge=0, description="Bytes of the disk that are left free"
    )


def main(argv: Sequence[str], verb: str) -> int:
    """Export; returns the exit status."""
    settings = parse(DataExportSettings, argv, verb=f"data {verb}")
    if (settings.root is None) == (settings.store is None):
        raise SettingsError("expected --root RUN or --store FOLDER, one of the two")
    store = store_at(settings.root or settings.store or Path())
    choice = ExportChoice(settings.robots, settings.sessions, settings.episodes, settings.order)
    with _View() as view:
        found = export_store(
            store,
            settings.to,
            settings.format,
            choice,
            video=settings.video,
            min_free_bytes=settings.min_free_bytes,
            on_progress=view.show,
        )
    _say(found, Console(highlight=False, soft_wrap=True))
    return 0


class _View:
    """Shows how much of the store was read, on a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("reading", total=None)

    def __enter__(self) -> _View:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, steps: int, read: int, total: int) -> None:
        if steps % _EVERY_STEPS == 0:
            self._bar.update(
                self._task, description=f"{steps:,} steps", completed=read, total=total
            )


def _say(found: Exported, console: Console) -> None:
    place = os.path.relpath(found.place)
    sessions = "1 session" if found.sessions == 1 else f"{found.sessions} sessions"
    console.print(
        f"{place}: {found.episodes} episodes, {found.steps:,} steps of {sessions}, "
        f"{size_text(found.bytes)}",
        markup=False,
    )
    if found.removed is not None:
        console.print(f"removed what an export had left unfinished: {found.removed}", markup=False)
    if found.broken:
        console.print(
            f"{found.broken} of the episodes lack their begin or their end: steps of theirs are "
            "not in the store",
            markup=False,
        )
    for reason, steps in found.left_out.most_common():
        console.print(f"left out: {steps:,} steps, {reason.replace('_', ' ')}", markup=False)
