"""Reads the archive of a golden rollout step by step, so that it never lies in memory unpacked.

It comes from the network with a policy: a megabyte of it may unpack to gigabytes, and whatever odd
thing stands in it ends in ``PolicyRefused``.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from typing import IO

import numpy as np

from wm_core.contract.errors import PolicyRefused

MAX_UNPACKED_BYTES = 1_000_000_000  #: of all arrays together, read one step after the other
MAX_ARRAY_BYTES = 128 << 20  #: of an array that is read at once, such as a camera frame
MAX_ARRAYS = 500
_SUFFIX = ".npy"
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Column:
    """Is one array (T, ...) of an archive, read row by row each time it is gone through.

    Attributes:
        shape: of the whole array.
        dtype: of its numbers.
    """

    def __init__(self, packed: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
        self._packed, self._entry = packed, entry
        with packed.open(entry) as file:
            self.shape, self.dtype = _header(file)
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > entry.file_size:
            raise ValueError(f"{entry.filename!r} says it has {size} bytes, it has fewer")

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Go through the rows (...)."""
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        if size > MAX_ARRAY_BYTES:
            raise PolicyRefused(
                f"golden rollout: at most {MAX_ARRAY_BYTES} bytes a step, got {size}"
            )
        with self._packed.open(self._entry) as file:
            _header(file)
            for _ in range(len(self)):
                row = file.read(size)
                if len(row) != size:
                    raise EOFError(f"{self._entry.filename!r} ends too early")
                yield np.frombuffer(row, self.dtype).reshape(self.shape[1:])

    def whole(self) -> np.ndarray:
        """Read all of it, (T, ...); raises ``PolicyRefused`` for more than a camera frame."""
        size = math.prod(self.shape) * self.dtype.itemsize
        if size > MAX_ARRAY_BYTES:
            raise PolicyRefused(
                f"golden rollout: at most {MAX_ARRAY_BYTES} bytes are read at once, got {size}"
            )
        with self._packed.open(self._entry) as file:
            _header(file)
            return np.frombuffer(file.read(size), self.dtype).reshape(self.shape)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Read shape and type of what follows in ``file``."""
    shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)  # type: ignore[index]
    if dtype.hasobject or dtype.kind not in "biuf":
        raise ValueError(f"expected plain numbers, got {dtype}")
    if fortran and len(shape) > 1:
        raise ValueError("expected the last axis to lie together")
    if len(shape) > 8 or min(shape, default=0) < 0:
        raise ValueError(f"expected at most 8 sizes of 0 or more, got {shape}")
    return shape, dtype


def open_golden(data: bytes) -> dict[str, Column]:
    """Open a golden archive, whose arrays (T, ...) are read when they are gone through.

    Raises:
        PolicyRefused: for what is no archive of plain arrays, or unpacks to too much.
    """
    try:
        packed = zipfile.ZipFile(io.BytesIO(data))
        entries = packed.infolist()
        if len(entries) > MAX_ARRAYS or len({e.filename for e in entries}) != len(entries):
            raise ValueError(f"expected at most {MAX_ARRAYS} arrays, each once")
        unpacked = sum(entry.file_size for entry in entries)
        if unpacked > MAX_UNPACKED_BYTES:
            raise PolicyRefused(
                f"golden rollout: at most {MAX_UNPACKED_BYTES} bytes, unpacked it has {unpacked}"
            )
        if any(e.compress_type not in _METHODS or e.flag_bits & 1 for e in entries):
            raise ValueError("expected arrays that are stored or deflated, and not encrypted")
        return {e.filename.removesuffix(_SUFFIX): Column(packed, e) for e in entries}
    except PolicyRefused:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise whatever comes
        raise PolicyRefused(f"golden rollout is not readable: {said(error)}") from error


def read_golden(data: bytes) -> dict[str, np.ndarray]:
    """Read the arrays (T, ...) of a golden archive by name, all at once.

    Raises:
        PolicyRefused: as ``open_golden`` does.
    """
    columns = open_golden(data)
    try:
        return {name: _joined(column) for name, column in columns.items()}
    except PolicyRefused:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise whatever comes
        raise PolicyRefused(f"golden rollout is not readable: {said(error)}") from error


def _joined(column: Column) -> np.ndarray:
    joined = np.empty(column.shape, column.dtype)
    if not column.shape:
        return column.whole()
    for at, row in enumerate(column):
        joined[at] = row
    return joined


def said(error: Exception) -> str:
    """Cut what an exception says to a line."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0][:300]}" if text else type(error).__name__
