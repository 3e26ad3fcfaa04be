"""Makes files and ledger agree after a kill, whatever lies in the folder or stands in a row.

A service calls it at each start.  Nothing that it finds may keep a service from starting: a row
that is out of bounds is moved away, a file without a row is entered or goes to the quarantine,
what cannot be read is counted and left alone.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import TMP_SUFFIX, sync_folder
from wm_core.format.chunk import ChunkKey
from wm_core.store.examine import Examined, check
from wm_core.store.index import SIDECARS, make_index, write_sidecar
from wm_core.store.ledger import ChunkRow, Ledger
from wm_core.store.quarantine import quarantine, quarantine_path
from wm_core.store.verdict import Verdict

log = logging.getLogger(__name__)

MAX_FOUND_BYTES = 256 << 20  #: a larger file is no chunk, whatever is in it


class Reconciled(NamedTuple):
    """Counts what a start-up found between the files and the ledger."""

    adopted: int = 0  #: good files that had no row and have one now
    quarantined: int = 0  #: files that had no row and are no chunk, or no new one
    unfinished: int = 0  #: temporary files of a killed writer, removed
    missing: int = 0  #: rows whose file is gone or of another size: acknowledged, and lost since
    unsound: int = 0  #: rows that were out of bounds, moved away
    unreadable: int = 0  #: files and folders that could not be read, left where they are


def reconcile(root: Path, ledger: Ledger) -> Reconciled:
    """Make files and ledger agree; keeps all other writers out meanwhile.

    Raises:
        StoreError: where the ledger itself is damaged, with what to do.
    """
    ledger.check()
    count = dict.fromkeys(Reconciled._fields, 0)
    with ledger.writing():
        count["unsound"] = ledger.set_aside_unsound()
        pruned = ledger.pruned_through()
        known = set(ledger.sessions())
        for robot, session, folder in session_folders(root):
            known.discard((robot, session))
            rows = {row.seq: row for row in ledger.of_session(robot, session)}
            try:
                _session(root, ledger, ChunkKey(robot, session, 0), folder, rows, pruned, count)
            except OSError as error:
                log.warning("%s could not be read: %s", folder, error)
                count["unreadable"] += 1
        for robot, session in known:
            for row in ledger.of_session(robot, session):
                if row.arrival > pruned:
                    _lost(ledger, row, "its folder is gone", count)
    found = Reconciled(**count)
    if any(found):
        log.warning("store %s after an unclean end: %s", root, found)
    return found


def session_folders(root: Path) -> Iterator[tuple[str, str, Path]]:
    """Walk (robot, session, folder) of everything below ``root`` that may hold chunks."""
    for home in _folders(root):
        for folder in _folders(home):
            try:
                ChunkKey(home.name, folder.name, 0).check()
            except ChunkRefused:
                continue
            yield home.name, folder.name, folder


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            found = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError as error:
        log.warning("%s could not be read: %s", path, error)
        return []
    return sorted(found)


def _session(
    root: Path,
    ledger: Ledger,
    first: ChunkKey,
    folder: Path,
    rows: dict[int, ChunkRow],
    pruned: int,
    count: dict[str, int],
) -> None:
    """Reconcile one session's folder with its rows by sequence number."""
    files: dict[int, os.stat_result] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            number, _, kind = entry.name.partition(".")
            seq = int(number) if number.isdecimal() and len(number) == 8 else -1
            if kind == "mcap" and seq >= 0:
                files[seq] = entry.stat(follow_symlinks=False)
            elif kind.endswith(TMP_SUFFIX):
                _unlink(entry.path, "unfinished", count)
            elif kind == "idx.npz" or (  # of an older version: it is made again
                kind in SIDECARS and not (folder / f"{number}.mcap").exists()
            ):
                _unlink(entry.path, "", count)
    for seq, row in rows.items():
        if row.arrival <= pruned:
            if seq in files:  # evicted for room by a writer killed in between
                _remove(folder, seq)
        elif seq not in files:
            _lost(ledger, row, "its file is gone", count)
        elif files[seq].st_size != row.bytes:
            why = f"its file has {files[seq].st_size} bytes instead of {row.bytes}"
            _lost(ledger, row, why, count)
    for seq in sorted(files.keys() - rows.keys()):
        path = folder / f"{seq:08d}.mcap"
        try:
            count[adopt_file(root, ledger, first._replace(seq=seq), path)] += 1
        except OSError as error:
            log.warning("%s could not be read: %s", path, error)
            count["unreadable"] += 1


def _unlink(path: str, name: str, count: dict[str, int]) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        log.warning("%s could not be removed: %s", path, error)
        count["unreadable"] += 1
    else:
        if name:
            count[name] += 1


def _lost(ledger: Ledger, row: ChunkRow, why: str, count: dict[str, int]) -> None:
    log.error("chunk %s was acknowledged and is lost: %s", tuple(row.key), why)
    ledger.mark_damaged(row.arrival, why)
    count["missing"] += 1


def _remove(folder: Path, seq: int) -> None:
    for kind in (*SIDECARS, "mcap"):
        (folder / f"{seq:08d}.{kind}").unlink(missing_ok=True)


def adopt_file(root: Path, ledger: Ledger, key: ChunkKey, path: Path) -> str:
    """Enter a file that has no row, or move it to the quarantine with the reason.

    Returns:
        What became of it, as ``Reconciled`` names it: adopted, quarantined or unreadable.

    Raises:
        OSError: where it cannot be read.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FOUND_BYTES:
        log.warning("%s is no chunk: not a plain file of at most %d bytes", path, MAX_FOUND_BYTES)
        return "unreadable"
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        columns = check(data, key, max_bytes=len(data))
        rival = ledger.overlapping(key, columns.meta.first_step, columns.meta.steps)
        if rival is not None:
            raise ChunkRefused(rival)
    except ChunkRefused as error:
        verdict = Verdict("damaged", f"found without a row and is no chunk: {error}")
        chunk = Examined(key, data, sha256, None, verdict, keep=True)
        quarantine(root, ledger, [(chunk, verdict)])
        if not quarantine_path(root, key, sha256).exists():
            return "unreadable"  # no room there: it stays, and the next start looks again
        _remove(path.parent, key.seq)
        return "quarantined"
    _sync(path)
    write_sidecar(root, key, make_index(columns), sha256)
    ledger.add(key, sha256, len(data), columns.meta)
    return "adopted"


def _sync(path: Path) -> None:
    """Make a file durable that a killed writer may have left to the system."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(path.parent)
