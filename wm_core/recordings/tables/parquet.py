"""Reads columns of parquet files as arrays, and images of them one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError, nearest, shown
from wm_core.recordings.libraries import import_library
from wm_core.recordings.tables.damage import unreadable
from wm_core.recordings.tables.images import decoded

_NEEDED_FOR = "LeRobot sets"
_BATCH = 32  # rows of images that are in memory together


class ParquetFile:
    """Is one parquet file whose small columns are read at once.

    Args:
        path: of the file.
        columns: that are read; all of them have to be there.
        also: columns that are read where they are there.

    Raises:
        RecordingError: for a file that is missing or damaged, or lacks a column.
    """

    def __init__(self, path: Path, columns: Sequence[str], also: Sequence[str] = ()) -> None:
        self.path = path
        parquet = import_library("pyarrow.parquet", needed_for=_NEEDED_FOR)
        if not path.is_file():
            raise RecordingError(f"{path}: this file is missing")
        try:
            self._file = parquet.ParquetFile(path)
            self.names: list[str] = list(self._file.schema_arrow.names)
            for name in columns:
                if name not in self.names:
                    raise RecordingError(f"{path}: {nearest(name, self.names, what='column')}")
            self._table = self._file.read(
                columns=[*columns, *(name for name in also if name in self.names)]
            )
        except (OSError, ValueError, NotImplementedError) as error:
            raise unreadable(path, "parquet file", error) from None

    @property
    def rows(self) -> int:
        """Count the rows of the file."""
        return int(self._file.metadata.num_rows)

    def column(self, name: str, begin: int = 0, end: int | None = None) -> np.ndarray:
        """Read rows ``begin`` to ``end`` of a column of numbers as an array (T, ...).

        Raises:
            RecordingError: for rows of different lengths, or what are no numbers.
        """
        where = f"{self.path}, {name}"
        count = (self.rows if end is None else end) - begin
        values = self._table.column(name).slice(begin, count).combine_chunks()
        if hasattr(values, "chunks"):  # no rows at all, or an older library
            values = values.chunk(0) if values.num_chunks else values
        return numbers_of(values, count, where)

    def images(
        self, names: Sequence[str], begin: int, end: int
    ) -> Iterator[Mapping[str, np.ndarray | None]]:
        """Decode rows ``begin`` to ``end`` of columns of images, a few at a time.

        Yields:
            (H, W, C) uint8 or uint16 for each name; None where a row holds none.
        """
        groups: list[int] = []
        first = row = 0
        for i in range(self._file.num_row_groups):
            size = self._file.metadata.row_group(i).num_rows
            if row + size > begin and row < end:
                first = row if not groups else first
                groups.append(i)
            row += size
        batches = self._file.iter_batches(_BATCH, row_groups=groups, columns=list(names))
        row = first
        while True:
            try:
                batch = next(batches, None)
            except (OSError, ValueError, NotImplementedError) as error:
                raise RecordingError(f"{self.path}: row {row}: {shown(error, 200)}") from None
            if batch is None:
                return
            inside = batch.slice(
                max(0, begin - row), max(0, min(end, row + len(batch)) - max(begin, row))
            )
            row += len(batch)
            for line in inside.to_pylist():
                yield {name: self._image(line[name], name) for name in names}

    def _image(self, value: Any, name: str) -> np.ndarray | None:
        where = f"{self.path}, {name}"
        if isinstance(value, dict):  # as Hugging Face stores images: bytes, or a path to them
            data, path = value.get("bytes"), value.get("path")
            if data is None and path:
                data = self._beside(str(path), where)
        else:
            data = value
        if data is None:
            return None
        if not isinstance(data, bytes):
            raise RecordingError(f"{where}: expected the bytes of an image, got {type(data)}")
        return decoded(data, where)

    def _beside(self, path: str, where: str) -> bytes:
        """Read an image that lies in a file of the set, below its folder."""
        root = self.path.parents[2]
        target = root / path
        if ".." in target.parts or not target.is_relative_to(root) or not target.is_file():
            raise RecordingError(f"{where}: its image {shown(path, 120)!r} is missing")
        return target.read_bytes()


def numbers_of(values: Any, count: int, where: str) -> np.ndarray:
    """Make an array (count, ...) of an Arrow array of numbers, or of lists of them.

    Raises:
        RecordingError: for rows of different lengths, or what are no numbers.
    """
    types = import_library("pyarrow", needed_for=_NEEDED_FOR).types
    compute = import_library("pyarrow.compute", needed_for=_NEEDED_FOR)
    dims = [count]
    while (
        types.is_list(values.type)
        or types.is_large_list(values.type)
        or types.is_fixed_size_list(values.type)
    ):
        lengths = compute.unique(compute.list_value_length(values)).to_pylist()
        if len(lengths) > 1 or None in lengths:
            raise RecordingError(
                f"{where}: expected rows of one length, got {sorted(map(str, lengths))[:5]}"
            )
        dims.append(int(lengths[0]) if lengths else 0)
        values = values.flatten()
    kind = values.type
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise RecordingError(f"{where}: expected numbers, got {kind}")
    array = np.asarray(values.to_numpy(zero_copy_only=False))
    if array.dtype == object:  # flags, some of which are missing
        array = array.astype(np.float64)
    return array.reshape(dims)
