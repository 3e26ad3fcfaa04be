"""Reads what a chunk file says of itself without unpacking a block: its meta and its times.

A file of megabytes costs a few small reads.  Nothing is verified beyond what is read; who learns
from a chunk reads it by ``format.columns``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from mcap.writer import MCAP0_MAGIC

from wm_core.contract.errors import ChunkRefused
from wm_core.format import records
from wm_core.format.meta import MAX_META_BYTES, MAX_STEPS, METADATA, ChunkMeta
from wm_core.format.records import RECORD, RecordBody

_MAX_INDEX_BYTES = 6 + 16 * MAX_STEPS
_MAX_RECORDS = 1 << 17


class ChunkFront(NamedTuple):
    """Holds what a chunk says in front of its blocks and beside them."""

    meta: ChunkMeta
    library: str  #: that wrote the file, as it names itself
    log_time: (
        np.ndarray
    )  #: (n,) int64 ns of each step: its stamp, moved on where stamps do not grow


def read_front(path: Path) -> ChunkFront:
    """Read meta and times of the chunk file at ``path``.

    Raises:
        OSError: where the file cannot be read.
        ChunkRefused: where it is no chunk, as far as was looked.
    """
    with path.open("rb", buffering=1 << 13) as file:
        return _Front(file, os.fstat(file.fileno()).st_size).read()


class _Front:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._at = file, size, 0

    def read(self) -> ChunkFront:
        if self._file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            raise ChunkRefused("does not begin as an MCAP file does")
        self._at = len(MCAP0_MAGIC)
        meta, library, times, wants_times = None, "", [], False
        for _ in range(_MAX_RECORDS):
            head = self._file.read(RECORD.size)
            if len(head) < RECORD.size:
                raise ChunkRefused("MCAP file ends without its data end")
            opcode, size = RECORD.unpack(head)
            self._at += RECORD.size
            if size > self._size - self._at:
                raise ChunkRefused(
                    f"record of {size} bytes where {self._size - self._at} are left"
                )
            if opcode == records.HEADER:
                body = self._body(size, MAX_META_BYTES, "header")
                body.text(64)
                library = body.text(256)
            elif opcode == records.METADATA and meta is None:
                meta = _meta(self._body(size, 2 * MAX_META_BYTES, "metadata"))
            elif opcode == records.MESSAGE_INDEX and wants_times:
                times.append(_times(self._body(size, _MAX_INDEX_BYTES, "message index")))
                wants_times = False
            elif opcode == records.DATA_END:
                break
            else:
                wants_times = wants_times or opcode == records.CHUNK
                self._file.seek(size, os.SEEK_CUR)
            self._at += size
        if meta is None:
            raise ChunkRefused(f"no {METADATA!r} metadata: an MCAP file, but not a chunk")
        found = np.concatenate(times) if times else np.empty(0, np.int64)
        if len(found) != meta.steps:
            raise ChunkRefused(f"meta says {meta.steps} steps, the indexes {len(found)}")
        return ChunkFront(meta, library, found)

    def _body(self, size: int, most: int, what: str) -> RecordBody:
        if size > most:
            raise ChunkRefused(f"{what} record of {size} bytes; at most {most} are read")
        return RecordBody(self._file.read(size), 0, size, what)


def _meta(body: RecordBody) -> ChunkMeta | None:
    if body.text(256) != METADATA:
        return None
    entries = body.sized()
    inner = RecordBody(entries, 0, len(entries), "metadata")
    inner.text(256)
    return ChunkMeta.parse(inner.text(2 * MAX_META_BYTES))


def _times(body: RecordBody) -> np.ndarray:
    """(k,) int64 ns: the log times of a block's messages on one channel."""
    body.u16()
    entries = body.sized()
    pairs = np.frombuffer(entries, "<u8", len(entries) // 16 * 2)
    return pairs.reshape(-1, 2)[:, 0].astype(np.int64)
