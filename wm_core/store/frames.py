"""Reads images and large vectors of the store by the block, and keeps blocks up to a bound.

A block is the run of steps that was compressed together.  It is read with one ``pread`` (a memory
map that faults page by page is several times slower on cold data) and stays in memory, unpacked,
until others were used more recently.  So does each image that was decoded from a JPEG picture.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from wm_core.contract.errors import ChunkRefused, StoreError
from wm_core.contract.inputs import ImageSpec
from wm_core.format.cdr import jpeg_at
from wm_core.format.pictures import decode_picture


@dataclass(slots=True)
class BlockPlace:
    """Locates one block."""

    path: Path
    offset: int
    size: int
    unpacked: int
    crc: int  #: CRC-32 of the unpacked block
    packed_crc: int | None = None  #: of the bytes that were once found to unpack to it


class BlockLost(StoreError):
    """Reports a block that is in an index and cannot be read any more."""


class BlockCache:
    """Caches unpacked blocks by (chunk, block); the least recently used are evicted first.

    Images that were decoded are among them, by (chunk, block, offset).

    Args:
        max_bytes: of unpacked data; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.hits = self.misses = 0
        self._blocks: OrderedDict[tuple[int, ...], bytes] = OrderedDict()
        self._decompressor = zstandard.ZstdDecompressor()
        self._open: tuple[int, int] | None = None  # chunk and file descriptor
        self._last: tuple[tuple[int, int], bytes] | None = None  # read, until ``release``

    def find(self, key: tuple[int, int]) -> bytes | None:
        """Return the block of ``key`` if it is cached, or was read last."""
        block = self._blocks.get(key)
        if block is None and self._last is not None and self._last[0] == key:
            return self._last[1]
        if block is None:
            self.misses += 1
            return None
        self.hits += 1
        self._blocks.move_to_end(key)
        return block

    def read(self, key: tuple[int, int], place: BlockPlace) -> bytes:
        """Read the block at ``place`` from the disk and cache it as ``key``.

        The first time, what it unpacks to is checked.  From then on the packed bytes are, which
        are far fewer: where they are those of the first time, they unpack to the same.

        Raises:
            BlockLost: where file or block is not what it was.
        """
        try:
            packed = os.pread(self._handle(key[0], place.path), place.size, place.offset)
            block = self._decompressor.decompress(packed, max_output_size=place.unpacked)
        except (OSError, zstandard.ZstdError) as error:
            raise BlockLost(f"{place.path} at {place.offset}: {error}") from error
        packed_crc = zlib.crc32(packed)
        if packed_crc != place.packed_crc:
            if len(block) != place.unpacked or zlib.crc32(block) != place.crc:
                raise BlockLost(f"{place.path} at {place.offset}: the block is damaged")
            place.packed_crc = packed_crc
        self._keep(key, block)
        self._last = key, block
        return block

    def read_pictures(
        self,
        key: tuple[int, int],
        place: BlockPlace,
        image: ImageSpec,
        offsets: np.ndarray,
        out: np.ndarray,
    ) -> None:
        """Decode the JPEG pictures at ``offsets`` (n,) of a block to ``out`` (n, bytes) uint8.

        Raises:
            BlockLost: where the file, the block or a picture is not what it was.
        """
        block: bytes | None = None
        for row, offset in zip(out, offsets.tolist(), strict=True):
            pixels = self._blocks.get((*key, offset))
            if pixels is not None:
                self._blocks.move_to_end((*key, offset))
            else:
                if block is None:
                    block = self.find(key) or self.read(key, place)
                try:
                    pixels = decode_picture(jpeg_at(block, offset), image).tobytes()
                except ChunkRefused as error:
                    raise BlockLost(f"{place.path} at {place.offset}: {error}") from error
                self._keep((*key, offset), pixels)
            row[:] = np.frombuffer(pixels, np.uint8)

    def _keep(self, key: tuple[int, ...], data: bytes) -> None:
        if len(data) <= self.max_bytes and key not in self._blocks:
            self._blocks[key] = data
            self.nbytes += len(data)
            while self.nbytes > self.max_bytes:
                self.nbytes -= len(self._blocks.popitem(last=False)[1])

    def _handle(self, chunk: int, path: Path) -> int:
        """Open the file of ``chunk``; the last one stays open until ``release``."""
        if self._open is None or self._open[0] != chunk:
            self.release()
            self._open = (chunk, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return self._open[1]

    def release(self) -> None:
        """Close the file that was read last, and forget the block."""
        self._last = None
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def forget(self, chunks: set[int]) -> None:
        """Evict every block of ``chunks``."""
        for key in [key for key in self._blocks if key[0] in chunks]:
            self.nbytes -= len(self._blocks.pop(key))


def run_ends(place: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """List where, in N steps, runs end that one copy takes: evenly spaced in one block.

    Args:
        place: (N,) int64, the same for all steps of a block.
        offsets: (N,) int64 in the block; where they fall back, another window begins.
    """
    gaps = np.diff(offsets)
    ends = (place[1:] != place[:-1]) | (gaps <= 0)
    ends[1:] |= ~ends[1:] & ~ends[:-1] & (gaps[1:] != gaps[:-1])
    return np.flatnonzero(ends) + 1


def copy_frames(block: bytes, offsets: np.ndarray, out: np.ndarray) -> None:
    """Copy the images that begin at ``offsets`` (n,) of ``block`` to ``out`` (n, bytes) uint8.

    The distance from one to the next is the same.
    """
    count, size = out.shape
    first = int(offsets[0])
    stride = int(offsets[1]) - first if count > 1 else size
    out[:] = np.ndarray((count, size), np.uint8, block, first, (stride, 1))


def copy_numbers(block: bytes, offsets: np.ndarray, out: np.ndarray) -> None:
    """Copy the float64 vectors that begin at ``offsets`` (n,) of ``block`` to ``out`` (n, size).

    ``out`` is float32; what is too large for it becomes infinite.
    """
    with np.errstate(over="ignore"):
        for row, offset in zip(out, offsets.tolist(), strict=True):
            row[:] = np.frombuffer(block, "<f8", out.shape[1], offset)
