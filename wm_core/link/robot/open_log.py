"""Writes the steps of the open chunk ahead, so that a kill or a power cut costs few of them.

``<session>/open.log`` holds one chunk's steps until it is sealed: a magic, then records of length,
checksum and content.  The first record is the chunk's meta, then comes one per step, and last,
before the sealed file appears, the meta that it will have: what is made of a log once more is
equal byte for byte.  A record counts only with its checksum, which is seeded with the chunk's
number, so a torn tail and the remains of an earlier chunk are cut off.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from pydantic import ValidationError

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import make_folder, sync_folder
from wm_core.contract.step import STAMP_LIMIT_NS
from wm_core.format.chunk import MAX_STEPS, ChunkMeta, EncodedStep
from wm_core.format.meta import MAX_UNPACKED_BYTES

LOG_NAME = "open.log"

_MAGIC = b"wm open\x01"
_FRONT = struct.Struct("<8sI")  # magic, number of the chunk
_RECORD = struct.Struct("<II")  # length of kind and content, crc32 of both
_STEP = struct.Struct("<qI")  # stamp in ns, number of messages; then their lengths
_META, _STEPS, _END = b"m", b"s", b"e"
_MAX_RECORD_BYTES = 64 << 20
_MAX_META_BYTES = 1 << 20
_EARLIER_S = 0.2  # a step waited in the queue before, and the next look comes so much later
_LEVEL = 1  # of zstd: less to write for little work


class OpenLog:
    """Is the log of one session, which each chunk begins anew; its owner is the writer thread.

    Every method may raise ``OSError``; what was appended before stays.

    Args:
        path: of the log's file.
        sync_s: most seconds for which appended steps may be lost by a power cut; 0: no log.
    """

    def __init__(self, path: Path, *, sync_s: float) -> None:
        self._path, self._sync_s = path, sync_s
        self._pack = zstandard.ZstdCompressor(level=_LEVEL).compress
        self._handle: int | None = None
        self._seq = 0
        self._whole = False  # whether every step of the open chunk is in the log
        self._dirty_since_s: float | None = None
        self.bytes = 0  #: of the file
        self.bytes_written = 0  #: in all
        self.faulty = False  #: whether the disk refused it last, for its owner

    @property
    def is_whole(self) -> bool:
        """Tell whether the log holds every step of the open chunk."""
        return self._whole

    def begin(self, meta: ChunkMeta) -> None:
        """Begin the log of the chunk ``meta``, whose count of steps does not matter."""
        self._whole = False
        if not self._sync_s:
            return
        self._seq = meta.seq
        self._open()
        self._truncate(0)
        self._write(_FRONT.pack(_MAGIC, meta.seq) + self._record(_META, _encoded(meta)))
        self._whole = True

    def append(self, steps: list[EncodedStep]) -> None:
        """Add ``steps`` by one write; a log that lacks a step takes no more of its chunk."""
        if not self._whole:
            return
        try:
            self._write(b"".join(self._record(_STEPS, _encoded_step(step)) for step in steps))
        except OSError:
            self._whole = False
            raise

    def sync_if_due(self) -> bool:
        """Sync before a step is older than ``sync_s``; returns whether that was necessary."""
        since_s = self._dirty_since_s
        if since_s is None or time.monotonic() - since_s < self._sync_s - _EARLIER_S:
            return False
        self._sync()
        return True

    def end(self, meta: ChunkMeta) -> None:
        """Note durably, before the sealed file appears, the meta that it will have.

        A log that lacks steps or cannot take the note is emptied, as it would make another chunk
        of the same number.
        """
        try:
            if self._whole:
                self._write(self._record(_END, _encoded(meta)))
                self._sync()
                return
        except OSError:
            self._whole = False
        self.clear()
        self._sync()

    def clear(self) -> None:
        """Empty the log, once its steps are sealed or counted as dropped."""
        self._whole = False
        if self._handle is not None and self.bytes:
            self._truncate(0)

    def remove(self) -> None:
        """Close and remove the file."""
        self._whole = False
        if self._handle is not None:
            os.close(self._handle)
            self._handle, self.bytes, self._dirty_since_s = None, 0, None
        self._path.unlink(missing_ok=True)

    def _open(self) -> None:
        """Open the file, anew where somebody removed it."""
        if self._handle is not None:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self._path).st_ino == os.fstat(self._handle).st_ino:
                    return
            os.close(self._handle)
            self._handle = None
        make_folder(self._path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._handle = os.open(self._path, flags, 0o644)
        self.bytes = os.fstat(self._handle).st_size
        sync_folder(self._path.parent)

    def _write(self, data: bytes) -> None:
        assert self._handle is not None
        start, view = self.bytes, memoryview(data)
        try:
            while view:
                written = os.pwrite(self._handle, view, self.bytes)
                self.bytes += written
                view = view[written:]
        except OSError:
            with contextlib.suppress(OSError):
                self._truncate(start)
            raise
        self.bytes_written += len(data)
        if self._dirty_since_s is None:
            self._dirty_since_s = time.monotonic()

    def _truncate(self, size: int) -> None:
        assert self._handle is not None
        os.ftruncate(self._handle, size)
        self.bytes = size

    def _sync(self) -> None:
        if self._handle is not None:
            os.fdatasync(self._handle)
        self._dirty_since_s = None

    def _record(self, kind: bytes, content: bytes) -> bytes:
        body = kind + self._pack(content)
        return _RECORD.pack(len(body), zlib.crc32(body, self._seq)) + body


@dataclass
class LoggedChunk:
    """Holds what a log says of a chunk that was open."""

    meta: ChunkMeta  #: as it will be sealed, with the steps that were found
    steps: list[EncodedStep] = field(default_factory=list)
    torn_bytes: int = 0  #: behind the last whole record


def read_log(data: bytes) -> LoggedChunk | None:
    """Read the whole records in front of ``data``; None where not even the meta is whole.

    Raises:
        ChunkRefused: where a record with the right checksum does not fit its chunk.
    """
    if len(data) < _FRONT.size:
        return None
    magic, seq = _FRONT.unpack_from(data)
    if magic != _MAGIC:
        return None
    at, found = _FRONT.size, None
    most = most_bytes = 0
    while record := _next(data, at, seq):
        kind, packed = bytes(record[0][:1]), record[0][1:]
        if found is None:
            found = LoggedChunk(_meta(packed, seq))
            most = most_steps(found.meta)
            most_bytes = found.meta.model_copy(update={"steps": 1}).unpacked_bytes
        elif kind == _END:
            meta = _meta(packed, seq)
            begun = {"steps": found.meta.steps, "dropped": found.meta.dropped}
            if meta.model_copy(update=begun) != found.meta:
                raise ChunkRefused(f"log of chunk {seq} ends with the meta of another one")
            if meta.steps != len(found.steps):
                raise ChunkRefused(f"log ends with {len(found.steps)} steps, not {meta.steps}")
            found.meta = meta
            return found
        elif len(found.steps) == most:
            raise ChunkRefused(f"log of chunk {seq} has more than {most} steps")
        else:
            content = _unpacked(packed, most_bytes)
            found.steps.append(_step(content, len(found.meta.topics)))
        at = record[1]
    if found is not None:
        found.torn_bytes = len(data) - at
        if found.steps:  # a copy is not validated, which the sealed chunk will be
            found.meta = found.meta.model_copy(update={"steps": len(found.steps)})
    return found


def _next(data: bytes, at: int, seq: int) -> tuple[memoryview, int] | None:
    """Give the record at ``at`` and the end of it; None where there is no whole one."""
    if len(data) - at < _RECORD.size:
        return None
    size, crc = _RECORD.unpack_from(data, at)
    start = at + _RECORD.size
    if not 1 < size <= min(len(data) - start, _MAX_RECORD_BYTES):
        return None
    body = memoryview(data)[start : start + size]
    return (body, start + size) if zlib.crc32(body, seq) == crc else None


def most_steps(meta: ChunkMeta) -> int:
    """Compute how many steps of this spec a chunk may have, by the bytes that they unpack to."""
    one, two = (meta.model_copy(update={"steps": n}).unpacked_bytes for n in (1, 2))
    return int(min(MAX_STEPS, 1 + (MAX_UNPACKED_BYTES - one) // (two - one)))


def _unpacked(packed: memoryview, most_bytes: int) -> bytes:
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= most_bytes:
            raise ChunkRefused(f"record of a log unpacks to {size}, not {most_bytes} bytes")
        return zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise ChunkRefused(f"record of a log does not decompress: {error}") from error


def _encoded(meta: ChunkMeta) -> bytes:
    return meta.model_dump_json().encode()


def _meta(packed: memoryview, seq: int) -> ChunkMeta:
    try:
        meta = ChunkMeta.parse(_unpacked(packed, _MAX_META_BYTES).decode())
    except (ValidationError, UnicodeDecodeError) as error:
        raise ChunkRefused(f"log of chunk {seq} has no meta in front: {error}") from error
    if meta.seq != seq:
        raise ChunkRefused(f"log of chunk {seq} has the meta of chunk {meta.seq}")
    return meta


def _encoded_step(step: EncodedStep) -> bytes:
    sizes = [len(message) for message in step.messages]
    front = _STEP.pack(step.stamp_ns, len(sizes)) + struct.pack(f"<{len(sizes)}I", *sizes)
    return b"".join((front, *step.messages))


def _step(content: bytes, topics: int) -> EncodedStep:
    try:
        stamp_ns, count = _STEP.unpack_from(content)
        sizes = struct.unpack_from(f"<{count}I", content, _STEP.size)
    except (struct.error, MemoryError) as error:
        raise ChunkRefused(f"step of a log does not parse: {error}") from error
    if count != topics or not 0 <= stamp_ns < STAMP_LIMIT_NS:
        raise ChunkRefused(
            f"step of a log: expected {topics} messages and a ROS stamp, got {count} at {stamp_ns}"
        )
    messages, at = [], _STEP.size + 4 * count
    for size in sizes:
        messages.append(content[at : at + size])
        at += size
    if at != len(content):
        raise ChunkRefused(f"step of a log states {at} bytes, it has {len(content)}")
    return EncodedStep(stamp_ns, messages)
