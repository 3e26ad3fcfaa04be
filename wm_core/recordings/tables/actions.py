"""Finds out what the actions of a table are, and maps them to [-1, 1] or to one-hot choices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import ValidationError

from wm_core.contract.errors import RecordingError
from wm_core.contract.inputs import MAX_NUMBERS
from wm_core.contract.spec import ActionSpec
from wm_core.recordings.table_options import TableOptions

_FEW = 256  # whole numbers below it are choices where nothing else is said
_BEYOND = 1e-5  # of the distance of the bounds: what rounding may carry a command beyond them


class ActionRange:
    """Looks at every action of a table: of what kind they are, and how far they go."""

    def __init__(self, where: object) -> None:
        self._where = where
        self._low = self._high = np.zeros(0)
        self._whole = self._one_hot = True
        self._count = 0

    def add(self, values: np.ndarray) -> None:
        """Look at the actions (T, C) or (T,) of one episode."""
        columns = as_columns(values, self._where)
        if not len(columns):
            return
        if self._count and columns.shape[1] != len(self._low):
            raise RecordingError(
                f"{self._where}: expected actions of {len(self._low)} numbers, as before, got "
                f"{columns.shape[1]}"
            )
        good = np.where(np.isfinite(columns), columns, np.nan)
        with np.errstate(all="ignore"):
            low = np.fmin.reduce(good, axis=0)
            high = np.fmax.reduce(good, axis=0)
        self._low = np.fmin(self._low, low) if self._count else low
        self._high = np.fmax(self._high, high) if self._count else high
        self._whole &= values.dtype.kind in "iu"
        ones = ((columns == 0.0) | (columns == 1.0)).all(1) & (columns.sum(1) <= 1.0)
        self._one_hot &= bool(ones.all()) and bool((columns.sum(1) == 1.0).sum() * 2 > len(ones))
        self._count += len(columns)

    def spec(
        self, options: TableOptions, names: tuple[str, ...] = (), *, unit: bool = False
    ) -> ActionSpec:
        """Describe the actions: as the options say, else as the data has them.

        Args:
            options: what was said.
            names: one for each number of the action, or none.
            unit: the format has actions in [-1, 1]: those are its bounds, unless some are beyond.

        Raises:
            RecordingError: for no action at all, or bounds that do not fit.
        """
        if not self._count:
            raise RecordingError(f"{self._where}: it holds no action")
        size = len(self._low)
        few = self._low[0] >= 0 and self._high[0] < _FEW
        if options.action_choices:
            if size != 1 or not self._low[0] >= 0:
                raise RecordingError(
                    f"{self._where}: expected one number from 0 for --action-choices, got {size} "
                    f"from {self._low[0]:g}"
                )
            return ActionSpec.choices(options.action_choices)
        if self._whole and size == 1 and few and not _stated(options):
            return ActionSpec.choices(max(2, int(self._high[0]) + 1))
        if self._one_hot and size > 1 and not _stated(options):
            return ActionSpec.choices(size, names)
        if unit and (self._low >= -1.0).all() and (self._high <= 1.0).all():
            options = options.model_copy(
                update={
                    "action_low": options.action_low or (-1.0,),
                    "action_high": options.action_high or (1.0,),
                }
            )
        low = self._bounds(options.action_low, self._low, "low")
        high = self._bounds(options.action_high, self._high, "high")
        low, high = apart(low, high, stated=bool(options.action_low and options.action_high))
        return action_spec(self._where, low, high, names)

    def notes(self, options: TableOptions, spec: ActionSpec) -> list[str]:
        """Say what was found out about the actions, and how to say otherwise."""
        if spec.discrete:
            return [f"actions look like {spec.kind}"] if not options.action_choices else []
        if options.action_low and options.action_high:
            return []
        low, high = min(spec.low), max(spec.high)
        return [
            f"bounds of the {spec.size} numbers of an action are those of the data, within "
            f"{low:.4g} .. {high:.4g}; --action-low and --action-high say what the robot can do"
        ]

    def _bounds(self, stated: tuple[float, ...], seen: np.ndarray, side: str) -> np.ndarray:
        if stated and len(stated) not in (1, len(seen)):
            raise RecordingError(
                f"{self._where}: expected one number or {len(seen)} for --action-{side}, one for "
                f"each number of the action, got {len(stated)}"
            )
        found = np.broadcast_to(np.asarray(stated or seen, np.float64), seen.shape)
        if not np.isfinite(found).all():
            raise RecordingError(
                f"{self._where}: an element of the action is nowhere finite; state its range "
                "with --action-low and --action-high"
            )
        return found


def apart(
    low: np.ndarray, high: np.ndarray, *, stated: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Widen bounds (A,) that are the same, of a number that never changes, by 1 to both sides."""
    same = (low >= high) if not stated else np.zeros(low.shape, bool)
    near = low.astype(np.float32) == high.astype(np.float32)
    same = same | (near & (not stated))
    return np.where(same, low - 1.0, low), np.where(same, high + 1.0, high)


def action_spec(
    where: object, low: np.ndarray, high: np.ndarray, names: tuple[str, ...] = ()
) -> ActionSpec:
    """Describe actions that map to commands of ``low`` (A,) .. ``high`` (A,)."""
    try:
        return ActionSpec(low=tuple(low.tolist()), high=tuple(high.tolist()), names=names)
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecordingError(f"{where}: bounds of the action: {said}") from None


def choices_of(where: object, counts: Sequence[int]) -> ActionSpec:
    """Describe actions of as many choices as ``counts`` has numbers, each of so many."""
    try:
        if len(counts) == 1:
            return ActionSpec.choices(counts[0])
        return ActionSpec.several_choices(tuple(counts))
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise RecordingError(f"{where}: choices of the action: {said}") from None


def _stated(options: TableOptions) -> bool:
    return bool(options.action_low or options.action_high)


def as_columns(values: np.ndarray, where: object) -> np.ndarray:
    """Make (T, C) float64 of numbers (T, ...); raises ``RecordingError`` for anything else."""
    if values.dtype.kind not in "fiub" or values.ndim < 1:
        raise RecordingError(f"{where}: expected numbers, got {values.dtype} {values.shape}")
    columns = values.reshape(len(values), -1) if len(values) else values.reshape(0, 1)
    if columns.shape[1] > MAX_NUMBERS or not columns.shape[1]:
        raise RecordingError(
            f"{where}: expected 1 to {MAX_NUMBERS} numbers in a row, got {columns.shape[1]}"
        )
    return columns.astype(np.float64)


def to_actions(
    values: np.ndarray, spec: ActionSpec, where: object
) -> tuple[np.ndarray, np.ndarray]:
    """Map commands to actions.

    Args:
        values: (T, C) or (T,) as recorded: numbers, the index of a choice, or one-hot choices.
        spec: of the actions.
        where: the recording, for messages.

    Returns:
        The actions (T, A) float32, and which of them (T,) bool were beyond the bounds.
    """
    columns = as_columns(values, where)
    if not len(columns):
        return np.zeros((0, spec.size), np.float32), np.zeros(0, bool)
    if spec.discrete:
        return _to_choices(columns, spec, where)
    if columns.shape[1] != spec.size:
        raise RecordingError(
            f"{where}: expected {spec.size} numbers in an action, got {columns.shape[1]}"
        )
    low, high = np.array([spec.low, spec.high], np.float64)
    unit = (columns - low) / (high - low) * 2.0 - 1.0
    unit = np.where((low == -1.0) & (high == 1.0), columns, unit)  # not a bit of those changes
    unit = np.where(np.isfinite(unit), unit, np.nan)  # infinity is no command either
    clipped = np.asarray((np.abs(unit) > 1.0 + _BEYOND).any(1))
    return np.clip(unit, -1.0, 1.0).astype(np.float32), clipped


def _to_choices(
    columns: np.ndarray, spec: ActionSpec, where: object
) -> tuple[np.ndarray, np.ndarray]:
    """Make one-hot choices of indices (T, command_size), or take them as they are."""
    if columns.shape[1] == spec.size and columns.shape[1] != spec.command_size:
        return columns.astype(np.float32), np.zeros(len(columns), bool)
    if columns.shape[1] != spec.command_size:
        raise RecordingError(
            f"{where}: expected {spec.command_size} choices in an action, got {columns.shape[1]}"
        )
    last = np.array(spec.sizes) - 1.0
    known = np.isfinite(columns)
    index = np.clip(np.rint(np.where(known, columns, 0.0)), 0, last)
    actions = np.zeros((len(columns), spec.size), np.float32)
    np.put_along_axis(actions, index.astype(np.int64) + np.array(spec.begins), 1.0, axis=1)
    actions[~known.all(1)] = np.nan
    return actions, np.asarray(((index != columns) & known).any(1))
