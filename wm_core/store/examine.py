"""Examines a chunk before anything is written: hash, every message, and what is stored already."""

from __future__ import annotations

import hashlib
import logging
import stat
from dataclasses import dataclass
from pathlib import Path

from wm_core.contract.errors import ChunkRefused, ChunkVersionRefused
from wm_core.contract.spec import Spec
from wm_core.format.chunk import (
    MAX_FIRST_STEP,
    MAX_STEPS,
    ChunkKey,
    Columns,
    check_chunk,
    chunk_path,
)
from wm_core.store.ledger import ChunkRow, Ledger
from wm_core.store.verdict import Kind, Verdict

log = logging.getLogger(__name__)

MAX_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Examined:
    """Holds a chunk with what its bytes say; ``verdict`` is set where nothing is to be stored."""

    key: ChunkKey
    data: bytes
    sha256: str  #: of ``data``, 64 hexadecimal digits
    columns: Columns | None
    verdict: Verdict | None
    keep: bool = False  #: a refused chunk whose bytes go to the quarantine


def examine_chunk(
    root: Path,
    ledger: Ledger,
    key: ChunkKey,
    data: bytes,
    sha256: str | None,
    *,
    max_bytes: int,
    spec: Spec | None = None,
) -> Examined:
    """Examine a chunk that may come from anywhere; reads files of the store, and writes nothing.

    Args:
        root: the store's folder.
        ledger: of that store.
        key: whose chunk and which one.
        data: the chunk's file as it was sent.
        sha256: what the sender says its hash is, 64 hexadecimal digits; None for own bytes.
        max_bytes: a larger chunk is refused without being looked at.
        spec: refuse chunks that were recorded with another one; None takes any.
    """
    if len(data) > max_bytes:
        reason = f"expected at most {max_bytes} bytes, got {len(data)}"
        return Examined(key, data, "", None, Verdict("too_large", reason))
    got = hashlib.sha256(data).hexdigest()
    if sha256 not in (None, got):
        reason = f"expected sha256 {sha256}, got {got} over {len(data)} bytes"
        return Examined(key, data, got, None, Verdict("damaged", reason), keep=True)
    row = ledger.find(key)
    if row is not None and row.sha256 == got and is_settled(root, ledger, row):
        return Examined(key, data, got, None, Verdict("known"))
    try:
        return Examined(key, data, got, check(data, key, max_bytes=max_bytes, spec=spec), None)
    except ChunkRefused as error:
        kind: Kind = "damaged"
        if isinstance(error, ChunkVersionRefused):
            kind = "version"
        elif isinstance(error, ForeignChunk):
            kind = "conflict"
        return Examined(key, data, got, None, Verdict(kind, str(error)), keep=True)


class ForeignChunk(ChunkRefused):
    """Reports a sound chunk that was recorded with another spec than this store is for."""


def check(data: bytes, key: ChunkKey, *, max_bytes: int, spec: Spec | None = None) -> Columns:
    """Read every message of a chunk; whatever it does to the reader counts as damage of it.

    Raises:
        ForeignChunk: where it is sound and of another spec than ``spec``.
        ChunkRefused: where it is no sound chunk of ``key``.
    """
    try:
        columns = check_chunk(data, key, max_bytes=max_bytes)
        columns.check_pictures()
    except (ChunkRefused, MemoryError, OSError):
        raise
    except Exception as error:  # nothing that comes may stop the service
        log.exception("chunk %s made its reader fail", tuple(key))
        raise ChunkRefused(f"its reader failed with {type(error).__name__}: {error}") from error
    meta, blocks = columns.meta, len(columns.recording.blocks)
    if meta.first_step > MAX_FIRST_STEP:
        raise ChunkRefused(f"first_step: expected at most {MAX_FIRST_STEP}, got {meta.first_step}")
    if blocks > MAX_STEPS:
        raise ChunkRefused(f"expected at most {MAX_STEPS} compressed blocks, got {blocks}")
    lacking = lacks(meta.spec, spec) if spec is not None else ""
    if lacking:
        raise ForeignChunk(f"recorded with another spec than this store is for: {lacking}")
    return columns


def lacks(got: Spec, wanted: Spec) -> str:
    """Say what of ``wanted`` a recording of ``got`` does not have; empty where it can be used."""
    if got == wanted:
        return ""
    for name, sensor in wanted.inputs.items():
        if got.inputs.get(name) != sensor:
            return f"input {name}: expected {sensor}, got {got.inputs.get(name)}"[:500]
    for name in ("action", "period_s"):
        expected, has = getattr(wanted, name), getattr(got, name)
        if expected != has:
            return f"{name}: expected {expected}, got {has}"[:500]
    return ""


def is_settled(root: Path, ledger: Ledger, row: ChunkRow) -> bool:
    """Tell whether an acknowledged chunk lies there bit for bit, or was evicted for room."""
    if row.arrival <= ledger.pruned_through():
        return True
    try:
        read_stored(chunk_path(root, row.key), row)
    except (OSError, ChunkRefused):
        return False
    return True


def read_stored(path: Path, row: ChunkRow) -> bytes:
    """Read the file of an acknowledged chunk, whatever may lie in its place now.

    Raises:
        OSError: where it cannot be read.
        ChunkRefused: where it does not have the bytes that were acknowledged.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size != row.bytes:
        raise ChunkRefused(f"expected a plain file of {row.bytes} bytes, got {found.st_size}")
    data = path.read_bytes()
    got = hashlib.sha256(data).hexdigest()
    if got != row.sha256:
        raise ChunkRefused(f"expected sha256 {row.sha256}, the file has {got}")
    return data
