"""Reads images and large vectors of the store by the block, and keeps blocks up to a bound.

A block is the run of steps that was compressed together.  It is read with one ``pread`` (a memory
map that faults page by page is several times slower on cold data) and stays in memory, unpacked,
until others were used more recently.
"""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zstandard

from wm_core.contract.errors import StoreError


class BlockPlace(NamedTuple):
    """Locates one block."""

    path: Path
    offset: int
    size: int
    unpacked: int
    crc: int  #: CRC-32 of the unpacked block


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
        self._open: tuple[Path, int] | None = None

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

        Raises:
            BlockLost: where file or block is not what it was.
        """
        try:
            packed = os.pread(self._handle(place.path), place.size, place.offset)
            block = self._decompressor.decompress(packed, max_output_size=place.unpacked)
        except (OSError, zstandard.ZstdError) as error:
            raise BlockLost(f"{place.path} at {place.offset}: {error}") from error
        if len(block) != place.unpacked or zlib.crc32(block) != place.crc:
            raise BlockLost(f"{place.path} at {place.offset}: the block is damaged")
        if len(block) <= self.max_bytes:
            self._blocks[key] = block
            self.nbytes += len(block)
            while self.nbytes > self.max_bytes:
                self.nbytes -= len(self._blocks.popitem(last=False)[1])
        return block

    def _handle(self, path: Path) -> int:
        """Open ``path``; the last file stays open until ``release``."""
        if self._open is None or self._open[0] != path:
            self.release()
            self._open = (path, os.open(path, os.O_RDONLY | os.O_NONBLOCK))
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


def copy_frames(block: bytes, offsets: np.ndarray, out: np.ndarray) -> None:
    """Copy the images that begin at ``offsets`` (n,) of ``block`` to ``out`` (n, bytes) uint8."""
    count, size = out.shape
    stride = int(offsets[1] - offsets[0]) if count > 1 else size
    if count > 2 and (offsets[1:] - offsets[:-1] != stride).any():
        for i, offset in enumerate(offsets.tolist()):
            out[i] = np.frombuffer(block, np.uint8, size, offset)
        return
    out[:] = np.ndarray((count, size), np.uint8, block, int(offsets[0]), (stride, 1))


def copy_numbers(block: bytes, offsets: np.ndarray, out: np.ndarray) -> None:
    """Copy the float64 vectors that begin at ``offsets`` (n,) of ``block`` to ``out`` (n, size).

    ``out`` is float32; what is too large for it becomes infinite.
    """
    with np.errstate(over="ignore"):
        for row, offset in zip(out, offsets.tolist(), strict=True):
            row[:] = np.frombuffer(block, "<f8", out.shape[1], offset)
