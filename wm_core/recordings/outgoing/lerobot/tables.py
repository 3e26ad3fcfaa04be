"""Writes the parquet files of a LeRobotDataset: rows of an episode, in files of bounded size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.files import json_text
from wm_core.recordings.outgoing.lerobot.features import Feature

FILE_BYTES = 100 << 20  #: beyond which the next episode begins another file
FILES_PER_CHUNK = 1000  #: of a folder
_GROUP_BYTES = 32 << 20  # of rows that wait for the end of their episode
_GROUP_ROWS = 20_000
_NAMES = "chunk-{chunk:03d}/file-{file:03d}"


class NumberedFiles:
    """Counts files through ``chunk-000/file-000``, ``chunk-000/file-001`` and so on.

    Args:
        folder: that holds the chunks.
        suffix: of the files, such as ``.parquet``.
    """

    def __init__(self, folder: Path, suffix: str) -> None:
        self._folder, self._suffix, self._number = folder, suffix, -1

    @property
    def place(self) -> tuple[int, int]:
        """Give (chunk, file) of the file that is written."""
        return divmod(max(self._number, 0), FILES_PER_CHUNK)

    @property
    def path(self) -> Path:
        chunk, file = self.place
        return self._folder / (_NAMES.format(chunk=chunk, file=file) + self._suffix)

    def next(self) -> Path:
        """Give the path of the next file, whose folder is there."""
        self._number += 1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path


class RowFiles:
    """Writes the rows of episodes; an episode is one group of rows unless it is very long.

    Args:
        folder: ``data`` of the dataset.
        features: every column but those of videos, in order.
    """

    def __init__(self, folder: Path, features: dict[str, Feature]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa, self._pq = pa, pq
        self.files = NumberedFiles(folder, ".parquet")
        self._features = features
        self._schema = pa.schema(
            [pa.field(name, self._type(feature)) for name, feature in features.items()],
            metadata={"huggingface": json_text(_hugging_face(features))},
        )
        self._writer: Any = None
        self._rows: dict[str, list] = {name: [] for name in features}
        self._bytes = 0

    def begin(self) -> tuple[int, int]:
        """Begin an episode; gives (chunk, file) of the file that takes it."""
        if self._writer is None or self.files.path.stat().st_size >= FILE_BYTES:
            self.close()
            small = [n for n, f in self._features.items() if f.dtype != "image"]
            self._writer = self._pq.ParquetWriter(
                self.files.next(), self._schema, compression="snappy", use_dictionary=small
            )
        return self.files.place

    def add(self, row: dict[str, Any]) -> None:
        """Add a row with a value for every column."""
        for name, rows in self._rows.items():
            value = row[name]
            rows.append(value)
            self._bytes += len(value) if isinstance(value, bytes) else getattr(value, "nbytes", 8)
        if self._bytes >= _GROUP_BYTES or len(rows) >= _GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait, as one group."""
        if self._bytes:
            columns = [
                self._column(feature, self._rows[n]) for n, feature in self._features.items()
            ]
            self._writer.write_table(self._pa.Table.from_arrays(columns, schema=self._schema))
            self._rows, self._bytes = {name: [] for name in self._features}, 0

    def close(self) -> None:
        """Finish the file that is open; a second call does nothing."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _type(self, feature: Feature) -> Any:
        pa = self._pa
        if feature.dtype == "image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        kind = pa.bool_() if feature.dtype == "bool" else getattr(pa, feature.dtype)()
        return kind if feature.shape == (1,) else pa.list_(kind, feature.shape[0])

    def _column(self, feature: Feature, values: list) -> Any:
        pa, kind = self._pa, self._type(feature)
        if feature.dtype == "image":
            paths = pa.nulls(len(values), pa.string())
            return pa.StructArray.from_arrays(
                [pa.array(values, pa.binary()), paths], fields=list(kind)
            )
        with np.errstate(over="ignore"):  # what is too large for it becomes infinite
            array = np.array(values).astype(feature.dtype)
        if feature.shape == (1,):
            return pa.array(array.reshape(-1), kind)
        return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), type=kind)


class EpisodeFile:
    """Writes ``meta/episodes``: a row for each episode, some at a time.

    Args:
        folder: ``meta/episodes``.
    """

    _WAITING = 100_000  # numbers of rows that are written together

    def __init__(self, folder: Path) -> None:
        self._files = NumberedFiles(folder, ".parquet")
        self._rows: list[dict[str, Any]] = []
        self._numbers = 0  # in them
        self._writer: Any = None

    def add(self, row: dict[str, Any]) -> None:
        """Add the row of an episode."""
        self._rows.append(row | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        self._numbers += sum(len(v) if isinstance(v, list) else 1 for v in row.values())
        if self._numbers >= self._WAITING:
            self._flush()

    def close(self) -> None:
        """Write the rest and finish the file; a second call does nothing."""
        self._flush()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self._rows:
            return
        if self._writer is None:
            schema = pa.Table.from_pylist(self._rows).schema
            self._writer = pq.ParquetWriter(self._files.next(), schema, compression="snappy")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._writer.schema))
        self._rows, self._numbers = [], 0


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """Write ``meta/tasks.parquet``, which pandas reads with the tasks as its index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": dtype,
            "metadata": None,
        }
        for name, kind, dtype in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": columns,
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    table = pa.table(
        {
            "task_index": pa.array(range(len(tasks)), pa.int64()),
            "task": pa.array(tasks, pa.string()),
        }
    )
    pq.write_table(table.replace_schema_metadata({"pandas": json_text(pandas)}), path)


def _hugging_face(features: dict[str, Feature]) -> dict[str, Any]:
    """Describe the columns for the library ``datasets``, which shows images by it."""
    kinds: dict[str, Any] = {}
    for name, feature in features.items():
        value = {"dtype": feature.dtype, "_type": "Value"}
        if feature.dtype == "image":
            kinds[name] = {"_type": "Image"}
        elif feature.shape == (1,):
            kinds[name] = value
        else:
            kinds[name] = {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    return {"info": {"features": kinds}}
