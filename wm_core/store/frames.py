"""Reads images and large vectors of the store by the block, and keeps blocks up to a bound.

A block is the run of steps that was compressed together.  It is read with one ``pread`` (a memory
map that faults page by page is several times slower on cold data) and stays in memory, unpacked,
until others were used more recently.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard

from wm_core.contract.errors import StoreError


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

    Args:
        max_bytes: of unpacked data; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.hits = self.misses = 0
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._decompressor = zstandard.ZstdDecompressor()
        self._open: tuple[int, int] | None = None  # chunk and file descriptor

    def find(self, key: tuple[int, int]) -> bytes | None:
        """Return the block of ``key`` if it is cached."""
        block = self._blocks.get(key)
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
        if len(block) <= self.max_bytes:
            self._blocks[key] = block
            self.nbytes += len(block)
            while self.nbytes > self.max_bytes:
                self.nbytes -= len(self._blocks.popitem(last=False)[1])
        return block

    def _handle(self, chunk: int, path: Path) -> int:
        """Open the file of ``chunk``; the last one stays open until ``release``."""
        if self._open is None or self._open[0] != chunk:
            self.release()
            self._open = (chunk, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return self._open[1]

    def release(self) -> None:
        """Close the file that was read last."""
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
