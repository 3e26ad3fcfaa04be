"""``wm data repair``: save what is whole of damaged chunks."""

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
from wm_core.contract.errors import shown
from wm_core.contract.files import json_text
from wm_core.recordings.care.mend import Mended, MendedChunk, repair_store, store_to_mend
from wm_core.store.quarantine import QUARANTINE


class DataRepairSettings(StoreSettings):
    """Save what is whole of damaged chunks, and make a new ledger where that is damaged.

    Nothing is deleted: a damaged file moves to the quarantine, the ledger is copied first, and
    what cannot be read stays where it is.  If a backup or a robot's black box has the bytes,
    `wm store import` is the better cure, and comes first.  Stop `wm serve` and `wm train`
    before.  Exit status 1 says that steps are lost.
    """

    dry_run: bool = Field(False, description="Say what would be saved and lost; change nothing")
    json_: Json = Field(False, description="Print one JSON object per chunk, and one that counts")


def main(argv: Sequence[str], verb: str) -> int:
    """Repair; returns the exit status."""
    settings = parse(DataRepairSettings, argv, verb=f"data {verb}")
    root = store_to_mend(settings.root)
    with Console(stderr=True).status("reading") as status:
        found = repair_store(
            root,
            dry_run=settings.dry_run,
            on_file=lambda path: status.update(f"reading {path}"),
        )
    if settings.json_:
        sys.stdout.writelines(json_text(_facts(chunk)) + "\n" for chunk in found.chunks)
        sys.stdout.write(json_text(_counts(found, settings.dry_run)) + "\n")
    else:
        _print(root, found, settings.dry_run)
    return int(found.lost > 0)


def _facts(chunk: MendedChunk) -> dict[str, object]:
    return {**vars(chunk), "path": str(chunk.path), "lost": chunk.lost}


def _counts(found: Mended, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run, "chunks": len(found.chunks), "saved": found.saved,
        "lost": found.lost, "ledger": found.ledger, "adopted": found.adopted,
        "unfinished": found.unfinished, "set_aside": found.set_aside,
        "copy": str(found.copy) if found.copy else None,
    }  # fmt: skip


def _print(root: Path, found: Mended, dry_run: bool) -> None:
    console = table_console()
    if found.chunks:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("chunk", overflow="fold")
        table.add_column("what is wrong", overflow="fold")
        for head in ("steps", "saved", "lost", "pieces"):
            table.add_column(head, justify="right")
        for chunk in found.chunks:
            name = "/".join(chunk.path.parts[-3:])
            counts = (chunk.steps, chunk.saved, chunk.lost, chunk.pieces)
            said = Text(without_hashes(f"{chunk.fault}: {chunk.note}"))
            table.add_row(Text(shown(name)), said, *map(str, counts))
        console.print(table)
    would = "would be " if dry_run else ""
    lines = [
        f"{root}: {len(found.chunks)} damaged chunks; {found.saved} steps {would}saved, "
        f"{found.lost} {would}lost"
    ]
    if found.ledger != "sound":
        lines.append(f"the ledger {'would be' if dry_run else 'was'} made anew: {found.ledger}")
    if found.adopted:
        lines.append(f"{found.adopted} good chunks without a row were entered")
    if found.set_aside:
        lines.append(
            f"{found.set_aside} torn files stay in {root / QUARANTINE}: they were never "
            "acknowledged, and a robot keeps what is not, and sends it again whole"
        )
    if found.copy is not None:
        lines.append(f"the ledger as it was before: {found.copy}")
    if any(chunk.fault == "missing" for chunk in found.chunks):
        lines.append(
            f"chunks that are gone come back by: wm store import --root {root.parent} --from "
            "FOLDER, of a backup or of a robot's black box"
        )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)
