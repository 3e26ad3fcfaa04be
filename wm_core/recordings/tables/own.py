"""Reads back the tables that ``wm data export`` writes: every field of a Step, as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError

from wm_core.contract.errors import RecordingError
from wm_core.contract.spec import Spec
from wm_core.contract.step import NUMBERS
from wm_core.recordings.options import OF_TABLES, ReadOptions
from wm_core.recordings.table_options import TableOptions
from wm_core.recordings.tables.rows import Rows

STAMP, REQUESTED, HAS_REQUESTED = "stamp_ns", "requested_action", "has_requested_action"
NEEDED = ("action", "reward", "is_first", "is_last", "is_terminal", STAMP)
COLUMNS = (*dict.fromkeys((*NUMBERS, *NEEDED)), REQUESTED, HAS_REQUESTED)  #: of an export


def is_plain(options: ReadOptions, where: object) -> bool:
    """Tell whether nothing was said about columns, so that an own export is read as it is.

    Raises:
        RecordingError: for a robot file, whose range of commands is not that of its actions.
    """
    why = "was written by wm data export, with what its columns are"
    options.check_taken(OF_TABLES - {"robot"}, where, why)
    return not [k for k in options.said() if k in TableOptions.model_fields]


def read_spec(value: Any, where: object) -> Spec:
    """Read the spec of an export, JSON text or what it parses to."""
    try:
        return (
            Spec.model_validate_json(value)
            if isinstance(value, str)
            else Spec.model_validate(value)
        )
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise RecordingError(f"{where}: its spec does not fit: {said}") from None


def exported_rows(
    where: str,
    spec: Spec,
    columns: Mapping[str, np.ndarray],
    vectors: Mapping[str, np.ndarray],
    images: Iterable[Mapping[str, np.ndarray | None]],
) -> Rows:
    """Make rows of the columns (T, ...) of an export, which is mapped by nothing.

    Raises:
        RecordingError: for a column that is missing.
    """
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise RecordingError(f"{where}: an export of wm data has columns {missing}; they are gone")
    steps, size = len(columns[STAMP]), spec.action.size
    for name, values in columns.items():
        wide = size if name in ("action", REQUESTED) else 1
        if name in COLUMNS and values.size != steps * wide:
            raise RecordingError(
                f"{where}: expected {steps} rows of {wide} in {name!r}, got {values.shape}"
            )
    for name, values in vectors.items():
        if values.size != steps * spec.vectors[name].size:
            raise RecordingError(
                f"{where}: expected {steps} rows of {spec.vectors[name].size} in {name!r}, got "
                f"{values.shape}"
            )
    first, last = columns["is_first"].astype(bool), columns["is_last"].astype(bool)
    begins = first.copy()
    begins[1:] |= last[:-1]
    action = columns["action"].reshape(steps, spec.action.size).astype(np.float32)
    requested = None
    if REQUESTED in columns and HAS_REQUESTED in columns:
        requested = columns[REQUESTED].reshape(steps, spec.action.size).astype(np.float32)
        requested[~columns[HAS_REQUESTED].astype(bool)] = np.nan
    fields = {
        name: columns[name].reshape(steps).astype(dtype)
        for name, dtype in NUMBERS.items()
        if name in columns and name not in ("is_first", "is_last")
    }
    stamps = columns[STAMP].reshape(steps).astype(np.int64)
    return Rows(
        where=where,
        time_s=stamps * 1e-9,
        action=action,
        vectors={k: v.reshape(steps, -1).astype(np.float32) for k, v in vectors.items()},
        images=images,
        begins=begins,
        requested=requested,
        fields=fields,
        stamp_ns=stamps,
    )
