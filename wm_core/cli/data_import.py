"""``wm data import``: take recordings of other systems into a run's store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from wm_core.cli.settings import parse
from wm_core.library.data_import import ImportedRecording, import_recordings
from wm_core.recordings.options import ReadOptions


class DataImportSettings(ReadOptions):
    """Take recordings of other systems into the store of a run folder.

    What is read is only read.  Steps that cannot be made without inventing something are left
    out, and counted by reason.  Importing the same recording again stores nothing again.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]] = Field(
        min_length=1, description="Recordings, or folders that hold some at any depth"
    )
    root: Path = Field(description="Run folder whose store takes the steps; made if it is absent")
    from_s: Annotated[float | None, tyro.conf.arg(name="from")] = ReadOptions.model_fields[
        "from_s"
    ]  # type: ignore[assignment]
    until_s: Annotated[float | None, tyro.conf.arg(name="until")] = ReadOptions.model_fields[
        "until_s"
    ]  # type: ignore[assignment]


def main(argv: Sequence[str], verb: str) -> int:
    """Import; returns the exit status."""
    settings = parse(DataImportSettings, argv, verb=f"data {verb}")
    console, errors = (
        Console(highlight=False, soft_wrap=True),
        Console(stderr=True, soft_wrap=True, highlight=False),
    )
    left_out: Counter[str] = Counter()
    steps = 0
    with errors.status("looking at what is there") as status:

        def on_step() -> None:
            nonlocal steps
            steps += 1
            if steps % 500 == 0:
                status.update(f"{steps} steps")

        for found in import_recordings(
            settings.paths,
            settings.root,
            settings,
            on_recording=lambda path, name: status.update(f"reading {path} ({name})"),
            on_step=on_step,
            on_warning=lambda path, text: errors.print(f"{path}: {text}", markup=False),
        ):
            console.print(_said(found), markup=False)
            for note in found.notes:
                console.print(f"  {note}", markup=False)
            left_out += found.left_out
    if left_out:
        console.print(_table(left_out))
    return 0 if steps else 1


def _said(found: ImportedRecording) -> str:
    written = found.written
    return (
        f"{found.path}: {written.episodes} episodes, {written.steps} steps of {found.robot} "
        f"({found.format}); {written.new} new chunks, {written.known} known"
    )


def _table(left_out: Counter[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 2, 0, 0))
    table.add_column("left out, because")
    table.add_column("times", justify="right")
    for reason, count in left_out.most_common():
        table.add_row(reason.replace("_", " "), f"{count:,}")
    return table
