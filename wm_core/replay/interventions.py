"""Finds the windows that hold an intervention, which can be drawn more often than others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from wm_core.store.index import step_number
from wm_core.store.reader import Store
from wm_core.store.segments import Segment

_ROWS = 65_536  #: steps that are looked at at a time


class InterventionWindows:
    """Draws windows with at least one intervention, as often as their weight asks for.

    Whatever chooses the other windows, a share of the draws is taken from those with an
    intervention alone.  Where all windows are equally likely by themselves, each of them comes
    ``weight`` times as often as one without.

    Args:
        store: what the windows are of.
        length: T, steps of a window.
        weight: how many times likelier a window with an intervention is, at least 1.
    """

    def __init__(self, store: Store, length: int, weight: float) -> None:
        self._store, self._length, self._weight = store, length, weight
        self._known: dict[tuple[int, int], np.ndarray] = {}  # first key -> (n + 1,) sums of flags
        self._found: list[np.ndarray] = []  # of each segment, the starts of its windows
        self._ends = np.zeros(0, np.int64)  # such windows up to and including each segment
        self._offsets = np.zeros(0, np.int64)  # windows of all kinds before each segment
        self._windows = 0

    def refresh(self, segments: Sequence[Segment]) -> None:
        """Take notice of ``segments``, each of at least T steps, whose windows are counted."""
        known = {}
        self._found = []
        for segment in segments:
            place = segment.session, segment.first_index
            known[place] = sums = self._sums(segment, self._known.get(place))
            with_one = sums[self._length :] > sums[: -self._length]
            self._found.append(np.flatnonzero(with_one))
        self._known = known
        self._ends = np.cumsum([len(found) for found in self._found], dtype=np.int64)
        counts = [segment.length - self._length + 1 for segment in segments]
        self._offsets = np.array([0, *accumulate(counts)], np.int64)
        self._windows = int(self._offsets[-1])

    def _sums(self, segment: Segment, known: np.ndarray | None) -> np.ndarray:
        """(n + 1,) int64 interventions before each step of ``segment``; reads new steps alone."""
        if known is None or len(known) > segment.length + 1:
            known = np.zeros(1, np.int64)
        parts = [known]
        for start in range(len(known) - 1, segment.length, _ROWS):
            rows = segment.rows(start, min(_ROWS, segment.length - start))
            flags = step_number(self._store.read(rows), "is_intervention")
            parts.append(parts[-1][-1] + np.cumsum(flags, dtype=np.int64))
        return np.concatenate(parts)

    @property
    def share(self) -> float:
        """Share of the draws that are of such windows alone, from 0 to 1."""
        found = int(self._ends[-1]) if len(self._ends) else 0
        more = (self._weight - 1.0) * found
        return more / (self._windows + more) if found else 0.0

    def choose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw at most ``n`` windows (m,) int64, as positions among all, segment after segment."""
        if not self.share:
            return np.empty(0, np.int64)
        among = rng.integers(int(self._ends[-1]), size=int(rng.binomial(n, self.share)))
        segment = np.searchsorted(self._ends, among, side="right")
        chosen = []
        for at, number in zip(segment.tolist(), among.tolist(), strict=True):
            found = self._found[at]
            start = found[number - (int(self._ends[at]) - len(found))]
            chosen.append(int(self._offsets[at]) + int(start))
        return np.array(chosen, np.int64)
