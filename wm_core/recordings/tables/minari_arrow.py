"""Reads one episode of a Minari set from an Arrow or Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError
from wm_core.recordings.libraries import import_library
from wm_core.recordings.tables.damage import unreadable
from wm_core.recordings.tables.images import decoded
from wm_core.recordings.tables.parquet import numbers_of

_NEEDED_FOR = "Minari sets in Arrow"
_ACTED = ("actions", "rewards", "terminations", "truncations")  # padded by a last row


def read_arrow(path: Path, wanted: set[str]) -> dict[str, np.ndarray]:
    """Read the columns of an episode as arrays.

    Args:
        path: of the file.
        wanted: observations, as ``observations/a/b``; others are not read.

    Returns:
        Observations (T, n) as they are stored, images (T, H, W, C); the others (T - 1, ...).

    Raises:
        RecordingError: for a file that is damaged.
    """
    arrow = import_library("pyarrow", needed_for=_NEEDED_FOR)
    try:
        if path.suffix == ".parquet":
            table = import_library("pyarrow.parquet", needed_for=_NEEDED_FOR).read_table(path)
        else:
            with import_library("pyarrow.ipc", needed_for=_NEEDED_FOR).open_file(path) as file:
                table = file.read_all()
    except (OSError, ValueError, NotImplementedError) as error:
        raise unreadable(path, "Arrow file", error) from None
    found: dict[str, np.ndarray] = {}
    for name in table.column_names:
        if name not in (*_ACTED, "observations"):
            continue
        values = arrow.concat_arrays(table.column(name).chunks)
        for key, leaf in _fields(name, values):
            if name in _ACTED or key in wanted or (key == name and len(wanted) == 1):
                array = _array(leaf, f"{path}, {key}")
                found[key] = array[:-1] if name in _ACTED else array
    return found


def _fields(name: str, values: Any) -> Iterator[tuple[str, Any]]:
    """List the arrays within an array of structures, as ``a/b``."""
    kind = values.type
    if not kind.num_fields or not hasattr(values, "field"):
        yield name, values
        return
    for i, part in enumerate(values.flatten()):
        key = kind.field(i).name
        key = f"_index_{key}" if key.isdigit() else key  # as its HDF5 files name them
        yield from _fields(f"{name}/{key}", part)


def _array(values: Any, where: str) -> np.ndarray:
    types = import_library("pyarrow", needed_for=_NEEDED_FOR).types
    if not types.is_binary(values.type):
        return numbers_of(values, len(values), where)
    frames = [decoded(data, where) for data in values.to_pylist() if data is not None]
    if len(frames) != len(values) or len({frame.shape for frame in frames}) > 1:
        raise RecordingError(f"{where}: expected a frame of one size in every row")
    return np.stack(frames) if frames else np.zeros((0, 1, 1, 3), np.uint8)
