"""Makes a new ledger from the chunk files, and from what can still be read of a damaged one.

The files say what is stored; only the old ledger knows in which order it arrived, what was
evicted for room and why chunks were refused, so as much of it is read as can be.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import sync_folder
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.store.examine import read_stored
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reconcile import adopt_file, session_folders
from wm_core.store.rows import COLUMNS, ChunkRow, Refused

log = logging.getLogger(__name__)

_NEW = ".rebuilding"
_PARTS = ("", "-wal", "-shm")  # of a SQLite database


@dataclass
class Rebuilt:
    """Counts what the new ledger holds, and where the old one is now."""

    kept: int = 0  #: rows of the old ledger whose files have their bytes
    evicted: int = 0  #: rows of the old ledger whose files were evicted for room
    missing: int = 0  #: rows of the old ledger whose files are gone; the next start says so too
    adopted: int = 0  #: good files without a row
    quarantined: int = 0  #: files that are no chunk
    unreadable: int = 0  #: files that were left where they are
    old: Path | None = None  #: the old ledger


def rebuild(root: Path, *, on_file: Callable[[Path], object] = lambda path: None) -> Rebuilt:
    """Put a new ledger in the place of the one in ``root``, which is moved aside.

    Nobody else may write to the store meanwhile.  A kill in between leaves the old ledger, or
    none, or the new one: it may be started again.

    Args:
        root: the store's folder.
        on_file: called before each chunk file is read.
    """
    old, new = root / LEDGER_NAME, root / (LEDGER_NAME + _NEW)
    for part in _PARTS:
        Path(f"{new}{part}").unlink(missing_ok=True)
    rows, refused, pruned = _salvage(old)
    found = Rebuilt()
    ledger = Ledger(new)
    try:
        kept, files = [], dict(_files(root))
        for row in sorted(rows.values()):
            path = files.get(row.key)
            if row.arrival <= pruned:
                kept.append(row)
                found.evicted += 1
            elif path is None:
                kept.append(row)
                found.missing += 1
            elif _is(path, row, on_file):
                kept.append(row)
                found.kept += 1
        ledger.restore(kept, pruned)
        for row in kept:
            files.pop(row.key, None)
        for key, path in sorted(files.items(), key=lambda item: _age(item[1])):
            on_file(path)
            try:
                what = adopt_file(root, ledger, key, path)
            except OSError as error:
                log.warning("%s could not be read: %s", path, error)
                what = "unreadable"
            setattr(found, what, getattr(found, what) + 1)
        for entry in refused:
            key = ChunkKey(entry.robot, entry.session, entry.seq)
            ledger.add_refused(key, entry.sha256, entry.bytes, entry.reason)
        ledger.fold()
    finally:
        ledger.close()
    found.old = _exchange(old, new)
    return found


def _exchange(old: Path, new: Path) -> Path | None:
    """Move ``old`` aside and ``new`` in its place; returns where the old one is."""
    aside = None
    if old.exists():
        number = 1
        while (aside := old.with_name(f"{old.name}.damaged-{number}")).exists():
            number += 1
        for part in reversed(_PARTS):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{old}{part}", f"{aside}{part}")
    else:  # a log without its database would be read into the new one
        for part in _PARTS[1:]:
            Path(f"{old}{part}").unlink(missing_ok=True)
    os.replace(new, old)
    sync_folder(old.parent)
    return aside


def _salvage(path: Path) -> tuple[dict[ChunkKey, ChunkRow], list[Refused], int]:
    """Read what can be read of a ledger: from both ends of each table, as far as it goes."""
    rows: dict[ChunkKey, ChunkRow] = {}
    refused: dict[tuple[object, ...], Refused] = {}
    pruned = 0
    if not path.exists():
        return rows, [], pruned
    db = sqlite3.connect(path)
    db.text_factory = lambda data: data.decode(errors="replace")
    try:
        for order in ("", " DESC"):
            query = f"SELECT {COLUMNS} FROM chunks ORDER BY arrival{order}"
            for fields in _read(db, query):
                row = ChunkRow(*fields)
                if row.is_sound():
                    rows.setdefault(row.key, row)
            query = f"SELECT * FROM quarantine ORDER BY rowid{order}"
            for fields in _read(db, query):
                with contextlib.suppress(ChunkRefused, TypeError):
                    entry = Refused(*fields)
                    ChunkKey(entry.robot, entry.session, entry.seq).check()
                    refused[(entry.robot, entry.session, entry.seq, entry.sha256)] = entry
        for (through,) in _read(db, "SELECT through FROM pruned"):
            if isinstance(through, int):
                pruned = max(pruned, through)
    finally:
        db.close()
    if rows and pruned > max(row.arrival for row in rows.values()):
        pruned = 0  # scrambled: no file may count as evicted for it
    return rows, list(refused.values()), pruned


def _read(db: sqlite3.Connection, query: str) -> list[tuple]:
    found: list[tuple] = []
    try:
        for fields in db.execute(query):
            found.append(fields)  # noqa: PERF402  what came before the damage is kept
    except (sqlite3.Error, OverflowError) as error:
        log.warning("the old ledger is damaged (%s): %s", error, query)
    return found


def _files(root: Path) -> list[tuple[ChunkKey, Path]]:
    found = []
    for robot, session, folder in session_folders(root):
        for path in folder.glob("*.mcap"):
            if path.stem.isdecimal() and len(path.stem) == 8:
                key = ChunkKey(robot, session, int(path.stem))
                found.append((key, chunk_path(root, key)))
    return found


def _age(path: Path) -> tuple[int, str]:
    try:
        return path.lstat().st_mtime_ns, str(path)
    except OSError:
        return 0, str(path)


def _is(path: Path, row: ChunkRow, on_file: Callable[[Path], object]) -> bool:
    """Tell whether the file at ``path`` has the bytes that ``row`` says."""
    on_file(path)
    try:
        read_stored(path, row)
    except (OSError, ChunkRefused):
        return False
    return True
