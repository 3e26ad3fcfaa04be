"""Turns the rows of one episode of a table into Steps: the arithmetic that all tables share.

A row holds an observation and the action that was chosen after seeing it.  What the action earned
arrives with the next row, so that rewards move by one row here and nowhere else.  Rows without a
frame, or whose time does not grow, are left out and counted; the episode ends before them and
another begins behind them, so that nothing is said about what is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError
from wm_core.contract.spec import Spec
from wm_core.contract.step import NUMBERS, Step

GAP = 1.5  #: periods from one row to the next, beyond which something is missing between them
PAUSE_NS = 1_000_000_000  #: between two episodes of a table, which does not say when they were
_FIELDS = tuple(name for name in NUMBERS if name not in ("is_first", "is_last"))


@dataclass
class Rows:
    """Holds one episode of a table, T rows in order of time."""

    where: str  #: file and episode, for messages
    time_s: np.ndarray  #: (T,) of the observations, seconds from anywhere
    action: np.ndarray  #: (T, A) float32 in [-1, 1] or one-hot; zeros where none was sent
    vectors: Mapping[str, np.ndarray]  #: (T, n) float32
    #: for each row its images as the network sees them; None for a frame that is missing
    images: Iterable[Mapping[str, np.ndarray | None]]
    earned: np.ndarray | None = None  #: (T,) reward of each row's action; None: no reward
    terminal: np.ndarray | None = None  #: (T,) bool, rows that nothing can follow; None: no such
    clipped: np.ndarray | None = None  #: (T,) bool, where the action was beyond its bounds
    begins: np.ndarray | None = None  #: (T,) bool, rows before which an episode ends
    requested: np.ndarray | None = None  #: (T, A) float32, NaN where nothing was requested
    #: (T,) columns that are fields of a Step as they stand; reward then is what arrived
    fields: Mapping[str, np.ndarray] = field(default_factory=dict)
    stamp_ns: np.ndarray | None = None  #: (T,) whole nanoseconds; None: from ``time_s``

    def __post_init__(self) -> None:
        columns: dict[str, Any] = {
            "action": self.action,
            "reward": self.earned,
            "stamps": self.stamp_ns,
            "terminal": self.terminal,
            "requested action": self.requested,
            **self.vectors,
            **self.fields,
        }
        for name, values in columns.items():
            if values is not None and len(values) != len(self.time_s):
                raise RecordingError(
                    f"{self.where}: expected {len(self.time_s)} rows in every column, got "
                    f"{len(values)} in {name!r}"
                )

    @property
    def finite(self) -> np.ndarray:
        """Tell which rows (T,) bool are free of NaN and infinity."""
        columns = [self.action, *self.vectors.values(), *self.fields.values()]
        columns += [] if self.earned is None else [self.earned]
        good = np.ones(len(self.time_s), bool)
        for values in columns:
            good &= np.isfinite(values).reshape(len(good), -1).all(1)
        return good


class StepMaker:
    """Makes the steps of a table, episode after episode, on one clock.

    Args:
        spec: of the steps.
        left_out: counts by reason what is not taken, or not as it stands.
        from_s: leave out what is earlier, seconds from the first row of the table; None: nothing.
        until_s: leave out what is later.
    """

    def __init__(
        self,
        spec: Spec,
        left_out: Counter[str],
        *,
        from_s: float | None = None,
        until_s: float | None = None,
    ) -> None:
        self._spec, self._left_out = spec, left_out
        self._from_ns = -np.inf if from_s is None else from_s * 1e9
        self._until_ns = np.inf if until_s is None else until_s * 1e9
        self._origin_ns: int | None = None
        self._next_ns = 0

    def episodes(self, rows: Rows) -> Iterator[Iterable[Step]]:
        """Yield the runs of ``rows`` without a gap; each is read before the next is asked for."""
        run = 0

        def number(step: Step) -> int:
            nonlocal run
            run += step.is_first
            return run

        for _, steps in groupby(self._steps(rows), key=number):
            yield steps

    def _steps(self, rows: Rows) -> Iterator[Step]:
        if not len(rows.time_s):
            self._count("episode_empty", True)
            return
        stamps = self._stamps(rows)
        finite, period_ns = rows.finite, self._spec.period_s * 1e9
        waiting: Step | None = None  # it is not known yet whether it is the last
        i = at = -1  # row of the step that waits
        for i, images in enumerate(rows.images):
            if i >= len(stamps):
                raise RecordingError(f"{rows.where}: more frames than the {len(stamps)} rows")
            why = self._why_not(images, stamps[i], stamps[at] if waiting else None)
            if why:
                self._left_out[why] += 1
                continue
            ends = i != at + 1 or (rows.begins is not None and bool(rows.begins[i]))
            if waiting and not ends and rows.stamp_ns is None:
                ends = stamps[i] - stamps[at] > GAP * period_ns
                self._count("gap_in_time", ends)
            if waiting:
                yield from self._closed(rows, waiting, at) if ends else (waiting,)
            first = waiting is None or ends
            self._count("not_finite_and_kept_as_invalid", not finite[i])
            self._count("action_clipped", rows.clipped is not None and rows.clipped[i])
            waiting, at = self._step(rows, i, images, stamps[i], first), i
        if i + 1 < len(stamps):
            raise RecordingError(f"{rows.where}: {i + 1} frames for {len(stamps)} rows")
        if waiting:
            yield from self._closed(rows, waiting, at)

    def _count(self, reason: str, happened: object) -> None:
        if happened:
            self._left_out[reason] += 1

    def _stamps(self, rows: Rows) -> list[int]:
        """Stamp the rows: as they say, else on the clock of the table, behind what was before."""
        if rows.stamp_ns is not None:
            stamps = [int(stamp) for stamp in rows.stamp_ns]
        else:
            known = rows.time_s[np.isfinite(rows.time_s)]
            since = rows.time_s - (known[0] if len(known) else 0.0)
            stamps = [
                self._next_ns + round(float(s) * 1e9) if np.isfinite(s) else -1 for s in since
            ]
            self._next_ns = max(self._next_ns, *stamps) + PAUSE_NS
        if self._origin_ns is None:
            self._origin_ns = stamps[0]
        return stamps

    def _why_not(
        self, images: Mapping[str, np.ndarray | None], stamp_ns: int, before_ns: int | None
    ) -> str:
        """Say why a row is not taken; empty where it is."""
        if any(image is None for image in images.values()):
            return "frame_missing"
        if stamp_ns < 0 or (before_ns is not None and stamp_ns <= before_ns):
            return "time_does_not_grow"
        since = stamp_ns - (self._origin_ns or 0)
        return "before_from" if since < self._from_ns else "after_until" * (since > self._until_ns)

    def _step(
        self,
        rows: Rows,
        i: int,
        images: Mapping[str, np.ndarray | None],
        stamp_ns: int,
        is_first: bool,
    ) -> Step:
        obs = {k: v for k, v in images.items() if v is not None}
        obs.update((k, v[i]) for k, v in rows.vectors.items())
        numbers = {k: rows.fields[k][i].item() for k in _FIELDS if k in rows.fields}
        if "reward" not in numbers:
            known = not is_first and rows.earned is not None
            numbers["reward"] = float(rows.earned[i - 1]) if known else 0.0  # type: ignore[index]
        asked = None if rows.requested is None else rows.requested[i]
        return Step(
            obs={key: obs[key] for key in self._spec.inputs},
            action=rows.action[i],
            is_first=is_first,
            is_last=False,
            is_terminal=bool(numbers.pop("is_terminal", False)),
            requested_action=None if asked is None or np.isnan(asked).all() else asked,
            stamp_ns=stamp_ns,
            **numbers,
        )

    def _closed(self, rows: Rows, step: Step, row: int) -> Iterator[Step]:
        """End an episode with ``step``, made of ``row``: what its action earned came too late.

        No observation follows that the reward could arrive with, so it is added to this one: the
        sum of an episode's rewards stays what it was.
        """
        if "reward" in rows.fields:
            yield replace(step, is_last=True)
            return
        if step.is_first:
            self._count("episode_of_one_step", True)
            return
        late = 0.0 if rows.earned is None else float(rows.earned[row])
        self._count("last_reward_counted_one_step_early", late)
        terminal = rows.terminal is not None and bool(rows.terminal[row])
        yield replace(step, is_last=True, is_terminal=terminal, reward=step.reward + late)


def earlier(values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Move values (T, ...) one row earlier within their episodes, which begin at ``begins`` (T,).

    Zeros take the place of what is not known of the last rows.
    """
    moved = np.concatenate([values[1:], np.zeros_like(values[:1])])
    moved[:-1][begins[1:]] = 0
    return moved
