"""Reads HDF5 files: what is in a group, by hard links alone, and blocks of it when they are asked.

A file may come from anywhere: links into other files and references to objects are not followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError, shown
from wm_core.recordings.libraries import import_library
from wm_core.recordings.tables.damage import unreadable
from wm_core.recordings.tables.images import decoded

MAGIC = b"\x89HDF\r\n\x1a\n"
SUFFIXES = (".hdf5", ".h5")
_NEEDED_FOR = "HDF5 files"
_DEPTH = 8  # groups within groups


def is_hdf5(path: Path) -> bool:
    """Tell whether ``path`` is a file that says that it is HDF5."""
    try:
        if path.suffix not in SUFFIXES or not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Any]:
    """Open a file for reading; raises ``RecordingError`` where it is none."""
    h5py = import_library("h5py", needed_for=_NEEDED_FOR)
    try:
        file = h5py.File(path, "r")
    except (OSError, ValueError) as error:
        raise unreadable(path, "HDF5 file", error) from None
    with file:
        yield file


class H5Column:
    """Is one dataset of a file, read by slices; damage becomes an error with its place."""

    def __init__(self, dataset: Any, where: str) -> None:
        self._dataset, self.where = dataset, where
        self.shape: tuple[int, ...] = tuple(dataset.shape or ())
        self.dtype: np.dtype[Any] = dataset.dtype

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def __getitem__(self, part: slice) -> np.ndarray:
        try:
            return np.asarray(self._dataset[part])
        except (OSError, ValueError, RuntimeError) as error:
            raise RecordingError(f"{self.where}: damaged: {shown(error, 200)}") from None


class CompressedColumn:
    """Is a column (T, H, W, C) of images that are stored as JPEG or PNG, a frame in each row."""

    def __init__(self, column: H5Column) -> None:
        self._column = column
        first = self[0:1] if len(column) else np.zeros((0, 1, 1, 3), np.uint8)
        self.shape: tuple[int, ...] = (len(column), *first.shape[1:])
        self.dtype = first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        frames = [
            decoded(np.asarray(row, np.uint8).tobytes(), self._column.where)
            for row in self._column[part]
        ]
        if len({frame.shape for frame in frames}) > 1:
            raise RecordingError(f"{self._column.where}: a camera must not change its size")
        return np.stack(frames) if frames else np.zeros((0, *self.shape[1:]), self.dtype)


class LongerColumn:
    """Is a column with one row more, the last of another: what was seen after the last action."""

    def __init__(self, column: Any, following: Any, where: str) -> None:
        if column.shape[1:] != following.shape[1:] or column.dtype != following.dtype:
            raise RecordingError(
                f"{where}: expected rows {column.shape[1:]} {column.dtype} in what follows too, "
                f"got {following.shape[1:]} {following.dtype}"
            )
        self._column, self._last = column, following
        self.shape: tuple[int, ...] = (len(column) + 1, *column.shape[1:])
        self.dtype = column.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> np.ndarray:
        begin, end, _ = part.indices(len(self))
        found: np.ndarray = self._column[begin : min(end, len(self) - 1)]
        if end < len(self) or begin >= end:
            return found
        return np.concatenate([found, self._last[len(self._last) - 1 : len(self._last)]])


def columns_below(group: Any, where: str) -> dict[str, H5Column]:
    """List the datasets in a group and in the groups within it, as ``a/b``, by name."""
    h5py = import_library("h5py", needed_for=_NEEDED_FOR)
    found: dict[str, H5Column] = {}

    def walk(here: Any, prefix: str, depth: int) -> None:
        for key in sorted(here.keys()):
            name, place = f"{prefix}{key}", f"{where}/{prefix}{key}"
            if not isinstance(here.get(key, getlink=True), h5py.HardLink):
                continue
            try:
                item = here[key]
            except (OSError, KeyError, RuntimeError) as error:
                raise RecordingError(f"{place}: damaged: {shown(error, 200)}") from None
            if isinstance(item, h5py.Dataset) and item.shape:
                found[name] = H5Column(item, place)
            elif isinstance(item, h5py.Group) and depth < _DEPTH:
                walk(item, f"{name}/", depth + 1)

    walk(group, "", 0)
    return found


def group_of(parent: Any, name: str) -> Any:
    """Return the group ``name`` that is held by a hard link; None where there is none."""
    h5py = import_library("h5py", needed_for=_NEEDED_FOR)
    if not isinstance(parent, h5py.Group) or name not in parent:
        return None
    if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
        return None
    item = parent[name]
    return item if isinstance(item, h5py.Group) else None
