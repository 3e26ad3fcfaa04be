"""Takes chunks into the store: verifies, writes durably, commits; or quarantines with a reason.

The HTTP service and local collection both call :func:`ingest`.  File and row are written inside
one exclusive transaction, so a file without a row is always the trace of a killed writer:
:func:`reconcile` enters it at the next start.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from wm_core.contract.errors import ChunkRefused, ChunkVersionRefused
from wm_core.contract.files import NO_ROOM, TMP_SUFFIX, write_durably
from wm_core.format.chunk import ChunkKey, Columns, check_chunk, chunk_path
from wm_core.store.index import index_path, make_index, write_sidecar
from wm_core.store.ledger import ChunkRow, Ledger

log = logging.getLogger(__name__)

QUARANTINE = "quarantine.d"  # no robot's name can hold a dot
MAX_CHUNK_BYTES = 16 << 20
MAX_QUARANTINE_BYTES = 1 << 30

Kind = Literal["stored", "known", "conflict", "damaged", "version", "too_large", "no_room", "busy"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Says what became of a chunk; only ``stored`` and ``known`` are acknowledgements."""

    kind: Kind
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.kind in ("stored", "known")


def ingest(
    root: Path,
    ledger: Ledger,
    key: ChunkKey,
    data: bytes,
    sha256: str | None = None,
    *,
    max_bytes: int = MAX_CHUNK_BYTES,
    min_free_bytes: int = 0,
) -> Verdict:
    """Store a chunk once, however often it comes.

    Args:
        root: the store's folder; the file becomes ``root/robot/session/seq.mcap``.
        ledger: of that store.
        key: whose chunk and which one.
        data: the chunk's file as it was sent.
        sha256: what the sender says its hash is, 64 hexadecimal digits; None for own bytes.
        max_bytes: a larger chunk is refused without being looked at.
        min_free_bytes: leave at least this much room on the disk.

    Returns:
        ``stored`` or ``known`` once file and row are durable; else why not.  Nothing that was
        stored before is ever touched.
    """
    if len(data) > max_bytes:
        return Verdict("too_large", f"expected at most {max_bytes} bytes, got {len(data)}")
    got = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, got):
        reason = f"expected sha256 {sha256}, got {got} over {len(data)} bytes"
        return _quarantine(root, ledger, key, data, got, Verdict("damaged", reason))
    try:
        row = ledger.find(key)
        if row is not None and row.sha256 == got and _is_settled(root, ledger, row):
            return Verdict("known")
        columns = check_chunk(data, key, max_bytes=max_bytes)
        root.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(root).free
        if free - len(data) < min_free_bytes:
            return _no_room(root, f"{free} bytes are free and {min_free_bytes} must stay so")
        return _store(root, ledger, key, data, got, columns)
    except ChunkRefused as error:
        kind: Kind = "version" if isinstance(error, ChunkVersionRefused) else "damaged"
        return _quarantine(root, ledger, key, data, got, Verdict(kind, str(error)))
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        return _no_room(root, error)
    except sqlite3.OperationalError as error:
        if any(words in str(error) for words in ("full", "disk I/O error")):
            return _no_room(root, error)
        return Verdict("busy", f"the ledger could not be written: {error}")


def _store(
    root: Path, ledger: Ledger, key: ChunkKey, data: bytes, sha256: str, columns: Columns
) -> Verdict:
    """Write file, sidecar and row of a verified chunk; or none where other bytes have its key."""
    path, index = chunk_path(root, key), make_index(columns)
    with ledger.writing():
        row = ledger.find(key)  # again, now that nobody else can write
        if row is None or row.sha256 == sha256:
            try:
                write_durably(path, data)
                write_sidecar(root, key, index, sha256)  # before a reader can see the row
                if row is None:
                    ledger.add(key, sha256, len(data), columns.meta)
            except (OSError, sqlite3.Error):
                if row is None:  # still the only writer: take back what has no row
                    path.unlink(missing_ok=True)
                    index_path(root, key).unlink(missing_ok=True)
                raise
            return Verdict("stored" if row is None else "known")
    reason = f"chunk {key.seq} is stored with sha256 {row.sha256}; this one has {sha256}"
    return _quarantine(root, ledger, key, data, sha256, Verdict("conflict", reason))


def _is_settled(root: Path, ledger: Ledger, row: ChunkRow) -> bool:
    """Tell whether the file of an acknowledged chunk is there, or was evicted for room."""
    return row.arrival <= ledger.pruned_through() or chunk_path(root, row.key).exists()


def _quarantine(
    root: Path, ledger: Ledger, key: ChunkKey, data: bytes, sha256: str, verdict: Verdict
) -> Verdict:
    """Keep refused bytes for a person to look at, up to a bound; the verdict stands anyway."""
    log.warning("chunk %s refused: %s", key, verdict.reason)
    name = f"{key.seq:08d}.{sha256[:16]}.refused"
    path = root / QUARANTINE / key.robot / key.session / name
    try:
        full = ledger.counts()["quarantined_bytes"] + len(data) > MAX_QUARANTINE_BYTES
        if not full and not path.exists():
            write_durably(path, data)
        ledger.add_refused(key, sha256, 0 if full else len(data), verdict.reason)
    except (OSError, sqlite3.OperationalError) as error:
        log.warning("refused chunk %s could not be kept: %s", key, error)
    return verdict


class Reconciled(NamedTuple):
    """Counts what a start-up found between the files and the ledger."""

    adopted: int = 0  #: good files that had no row and have one now
    quarantined: int = 0  #: files that had no row and are no chunk
    unfinished: int = 0  #: temporary files of a killed writer, removed
    missing: int = 0  #: rows whose file is gone: acknowledged, and lost since


def reconcile(root: Path, ledger: Ledger) -> Reconciled:
    """Make files and ledger agree after a kill; keeps all other writers out meanwhile."""
    adopted = quarantined = 0
    with ledger.writing():
        kinds = (f"*/*/*.mcap.*{TMP_SUFFIX}", f"*/*/*.idx.npz.*{TMP_SUFFIX}")
        unfinished = [path for kind in kinds for path in root.glob(kind)]
        for path in unfinished:
            path.unlink(missing_ok=True)
        rows = {row.key for row in ledger.since(0)}
        kept = {row.key for row in ledger.since(ledger.pruned_through())}
        pruned = rows - kept
        files = {key: path for path in root.glob("*/*/*.mcap") if (key := _key_of(path))}
        for key, path in sorted(files.items()):
            if key in pruned:  # evicted for room by a writer killed in between
                path.unlink()
                index_path(root, key).unlink(missing_ok=True)
            if key in rows:
                continue
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            try:
                columns = check_chunk(data, key, max_bytes=len(data))
                write_sidecar(root, key, make_index(columns), sha256)
                ledger.add(key, sha256, len(data), columns.meta)
                adopted += 1
            except ChunkRefused as error:
                reason = f"found without a row and is no chunk: {error}"
                _quarantine(root, ledger, key, data, sha256, Verdict("damaged", reason))
                path.unlink()
                index_path(root, key).unlink(missing_ok=True)
                quarantined += 1
    found = Reconciled(adopted, quarantined, len(unfinished), len(kept - files.keys()))
    if any(found):
        log.warning("store %s after an unclean end: %s", root, found)
    return found


def _key_of(path: Path) -> ChunkKey | None:
    """Read the key from a file's place in the store."""
    if not path.stem.isdecimal():
        return None
    try:
        return ChunkKey(path.parent.parent.name, path.parent.name, int(path.stem)).check()
    except ChunkRefused:
        return None


def _no_room(root: Path, why: object) -> Verdict:
    log.error("no room in %s: %s", root, why)
    return Verdict("no_room", f"no room on the trainer's disk: {why}")
