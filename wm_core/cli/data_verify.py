"""``wm data verify``: look at every chunk and every step of a store, and say what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wm_core.cli.data_care import Json, StoreSettings, table_console, without_hashes
from wm_core.cli.settings import parse
from wm_core.contract.errors import StoreError, nearest, shown
from wm_core.contract.files import json_text
from wm_core.recordings.care.checks import Limits
from wm_core.recordings.care.findings import CHECKS, Findings
from wm_core.recordings.care.inspect_store import inspect_store
from wm_core.recordings.care.place import reading, store_at


class DataVerifySettings(StoreSettings):
    """Look at every chunk and every step of a store, and say what is wrong.

    Faults are data that is lost or wrong: torn files and wrong hashes, jumps of time, NaN, frozen
    cameras, stuck sensors, sensors that lag, actions out of bounds.  Notes may be as they should:
    black images, rewards or actions that never change.  Exit status 1 says that there is a
    fault.  The store is only read; `wm store verify` looks at the files alone.
    """

    robot: str = Field("", description="Look at the chunks of this robot only")
    strict: bool = Field(False, description="Let notes set the exit status too")
    all_places: bool = Field(False, description="Print every place, not the first of each kind")
    frozen_s: float = Field(
        1.0, gt=0, description="Seconds that a sensor may repeat itself while something moves"
    )
    jump_periods: float = Field(
        3.0, gt=1, description="Periods that may lie between two steps of an episode"
    )
    json_: Json = Field(False, description="Print one JSON object per place, and one that counts")


def main(argv: Sequence[str], verb: str) -> int:
    """Verify; returns the exit status."""
    settings = parse(DataVerifySettings, argv, verb=f"data {verb}")
    root = store_at(settings.root)
    limits = Limits(frozen_s=settings.frozen_s, jump_periods=settings.jump_periods)
    with reading(root) as ledger, Console(stderr=True).status("verifying") as status:
        robots = {robot for robot, _ in ledger.sessions()}
        if settings.robot and settings.robot not in robots:
            raise StoreError(nearest(settings.robot, robots, what=f"robot in {root}"))
        found = inspect_store(
            root, ledger, robot=settings.robot, limits=limits,
            on_chunk=lambda row: status.update(f"chunk {row.arrival} of {row.robot}"),
        )  # fmt: skip
    if settings.json_:
        _print_json(found)
    else:
        _print(root, found, settings.all_places)
    return int(found.count("fault") > 0 or (settings.strict and found.count("note") > 0))


def _print_json(found: Findings) -> None:
    sys.stdout.writelines(json_text(finding.as_json()) + "\n" for finding in found.kept)
    counts = {
        "chunks": found.chunks, "steps": found.steps, "bytes": found.bytes,
        "faults": found.count("fault"), "notes": found.count("note"),
        "places": dict(found.places), "bad_steps": dict(found.bad_steps),
    }  # fmt: skip
    sys.stdout.write(json_text(counts) + "\n")


def _print(root: Path, found: Findings, all_places: bool) -> None:
    console = table_console()
    checks = [check for check in CHECKS if found.places[check]]
    if checks:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("")
        table.add_column("what", overflow="fold")
        table.add_column("places", justify="right")
        table.add_column("steps", justify="right")
        table.add_column("first of them", overflow="fold")
        table.add_column("what to do", overflow="fold")
        for check in checks:
            first, about = found.first(check), CHECKS[check]
            steps = found.bad_steps[check]
            table.add_row(
                Text(about.level, style="red" if about.level == "fault" else "yellow"),
                about.what, str(found.places[check]), str(steps or ""),
                Text(without_hashes(f"{first.where}: {first.detail}")), about.advice,
            )  # fmt: skip
        console.print(table)
    if all_places:
        for finding in found.kept:
            console.print(
                shown(f"{finding.check}  {finding.where}: {finding.detail}"),
                markup=False, soft_wrap=True,
            )  # fmt: skip
    console.print(
        f"{root}: {found.chunks} chunks, {found.steps} steps, {found.bytes / 1e6:.4g} MB looked "
        f"at; {found.count('fault')} faults, {found.count('note')} notes",
        markup=False, soft_wrap=True,
    )  # fmt: skip
