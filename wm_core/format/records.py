"""Reads the records of MCAP bytes that may come from anywhere: every size before it is used.

Nothing here takes more memory than the bytes that are there: what a record states is compared
with its length first, and strings are views until somebody needs them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from wm_core.contract.errors import ChunkRefused

HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 1, 2, 3, 4, 5, 6
MESSAGE_INDEX, CHUNK_INDEX, STATISTICS, METADATA = 7, 8, 11, 12
METADATA_INDEX, SUMMARY_OFFSET, DATA_END = 13, 14, 15
COMPRESSION = b"zstd"

RECORD = struct.Struct("<BQ")  #: opcode, length of the body
MESSAGE_HEAD = struct.Struct("<HIQQ")  #: channel, sequence, log time, publish time
_CHUNK_HEAD = struct.Struct("<QQQII")  # start, end, unpacked size, its crc, length of the codec
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_MAX_WINDOW_BYTES = 1 << 23  # more than our writer's level ever uses
_LEAST_ZSTD_BLOCK = 512  # bytes of content to a block, on average, at least ...
_FREE_ZSTD_BLOCKS = 1024  # ... beyond these


class RecordBody:
    """Reads the fields of one record's body in turn; raises ``ChunkRefused`` at its end.

    Args:
        data: the bytes that hold the record.
        at: where its body begins.
        size: of the body.
        what: the record's name, for people.
    """

    __slots__ = ("_what", "at", "data", "end")

    def __init__(self, data: bytes | memoryview, at: int, size: int, what: str) -> None:
        self.data, self.at, self.end, self._what = data, at, at + size, what

    def skip(self, count: int) -> int:
        """Move ``count`` bytes on; returns where they begin."""
        start = self.at
        if count > self.end - start:
            raise ChunkRefused(f"{self._what} record ends before its fields do")
        self.at = start + count
        return start

    def u16(self) -> int:
        return int(_U16.unpack_from(self.data, self.skip(2))[0])

    def u32(self) -> int:
        return int(_U32.unpack_from(self.data, self.skip(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack_from(self.data, self.skip(8))[0])

    def sized(self) -> memoryview:
        """Read a string or an array as it lies, behind its length of four bytes."""
        size = self.u32()
        start = self.skip(size)
        return memoryview(self.data)[start : start + size]

    def text(self, most: int) -> str:
        """Read a string of at most ``most`` bytes."""
        raw = self.sized()
        if len(raw) > most:
            raise ChunkRefused(f"{self._what} record: a string of {len(raw)} bytes, not {most}")
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            raise ChunkRefused(f"{self._what} record: a string is not UTF-8: {error}") from None

    def done(self) -> None:
        """Raise where bytes are left over."""
        if self.at != self.end:
            raise ChunkRefused(f"{self._what} record: {self.end - self.at} bytes left over")


def walk(
    data: bytes | memoryview, start: int, end: int, *, most: int
) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, offset of the body and its size of each record from ``start`` to ``end``.

    Raises:
        ChunkRefused: where a record overruns ``end``, or there are more than ``most``.
    """
    count = 0
    while start < end:
        if end - start < RECORD.size:
            raise ChunkRefused(f"{end - start} bytes left over behind the last record")
        opcode, length = RECORD.unpack_from(data, start)
        start += RECORD.size
        if length > end - start:
            raise ChunkRefused(f"record of {length} bytes where {end - start} are left")
        count += 1
        if count > most:
            raise ChunkRefused(f"more than {most} records")
        yield opcode, start, length
        start += length


class Block(NamedTuple):
    """Locates one compressed run of records within the file."""

    offset: int  #: of the compressed bytes in the file
    size: int  #: of the compressed bytes
    unpacked_size: int
    crc: int
    start_time: int  #: ns, the earliest log time that it claims to hold
    end_time: int  #: ns, the latest


def read_block(data: bytes, at: int, size: int) -> Block:
    """Read the chunk record whose body begins at ``at``; its sizes fit the record's."""
    if size < _CHUNK_HEAD.size:
        raise ChunkRefused(f"chunk record of {size} bytes")
    start, end, unpacked_size, crc, name_size = _CHUNK_HEAD.unpack_from(data, at)
    packed = at + _CHUNK_HEAD.size + name_size + 8
    if packed > at + size or data[at + _CHUNK_HEAD.size : packed - 8] != COMPRESSION:
        raise ChunkRefused("block is not compressed with zstd")
    (packed_size,) = _U64.unpack_from(data, packed - 8)
    if packed_size != at + size - packed:
        raise ChunkRefused(
            f"block states {packed_size} packed bytes, its record holds {at + size - packed}"
        )
    return Block(packed, packed_size, unpacked_size, crc, start, end)


def unpack_into(
    decompressor: zstandard.ZstdDecompressor, packed: memoryview, out: memoryview
) -> None:
    """Unpack one zstd frame, which is all of ``packed``, to fill ``out`` exactly.

    Nothing is taken but ``out``: a frame that states its size is unpacked straight into it.

    Raises:
        ChunkRefused: for anything but one such frame.
    """
    try:
        frame = zstandard.get_frame_parameters(packed)
        if frame.content_size != len(out):
            raise ChunkRefused(f"block states {len(out)} bytes, its frame {frame.content_size}")
        if frame.dict_id or frame.window_size > max(_MAX_WINDOW_BYTES, len(out)):
            raise ChunkRefused(
                f"zstd frame of window {frame.window_size} and dictionary {frame.dict_id}; "
                f"expected at most {_MAX_WINDOW_BYTES} and none"
            )
        start = zstandard.frame_header_size(packed)
        end = _frame_end(packed, start, len(out)) + 4 * frame.has_checksum
        if end != len(packed):
            raise ChunkRefused(f"zstd frame of {end} bytes in a block of {len(packed)}")
        with decompressor.stream_reader(packed) as reader:
            if reader.readinto(out) != len(out):
                raise ChunkRefused("block unpacks to less than it states")
    except zstandard.ZstdError as error:
        raise ChunkRefused(f"block does not decompress: {error}") from error


def _frame_end(packed: memoryview, at: int, content: int) -> int:
    """Find where the blocks of a zstd frame end, the first of which begins at ``at``."""
    most = _FREE_ZSTD_BLOCKS + content // _LEAST_ZSTD_BLOCK
    for _ in range(most):
        if at + 3 > len(packed):
            raise ChunkRefused("zstd frame ends too early")
        head = packed[at] | packed[at + 1] << 8 | packed[at + 2] << 16
        at += 3 + (1 if head >> 1 & 3 == 1 else head >> 3)  # a run has one byte
        if head & 1:
            return at
    raise ChunkRefused(f"zstd frame of more than {most} blocks for {content} bytes")
