"""Which windows a learner sees: every new one once, and for the rest a uniform draw."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.contract.errors import StoreError
from wm_core.replay.batch import make_batch
from wm_core.replay.online import OnlineQueue
from wm_core.store.frames import BlockLost
from wm_core.store.reader import Store
from wm_core.store.segments import Segment


class Sampler:
    """Draws batches of windows from a store that may grow meanwhile.

    Each valid window of T steps within a segment is equally likely; a draw costs the logarithm
    of the number of segments.

    Args:
        store: refreshed by whoever owns it.
        batch: B, windows per batch.
        length: T, steps per window.
        rng: of the draws.
        online_queue: windows that arrive from now on come first, once each, freshest first.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch: int,
        length: int,
        rng: np.random.Generator,
        online_queue: bool = True,
    ) -> None:
        self._store, self._batch, self._length, self._rng = store, batch, length, rng
        self._queue = OnlineQueue(store, length) if online_queue else None
        self._version = -1
        self._segments: list[Segment] = []
        self._ends = np.zeros(0, np.int64)  # windows up to and including each segment

    def can_sample(self) -> bool:
        """Whether the store holds at least one window."""
        with self._store.lock:
            self._update()
            return self._total > 0

    def sample(self) -> Batch[np.ndarray]:
        """Draw B windows of T steps, arrays (B, T, ...), and the context before each.

        Raises:
            StoreError: where the store holds no window of T steps.
        """
        while True:
            with self._store.lock:
                self._update()
                if not self._total:
                    raise StoreError(
                        f"{self._store.root} holds {self._store.steps} steps, but no run of "
                        f"{self._length} valid ones without a gap; collect more"
                    )
                try:
                    return self._gather([self._choose() for _ in range(self._batch)])
                except BlockLost:  # the store has left it out by now
                    continue

    @property
    def _total(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _update(self) -> None:
        if self._version == self._store.version:
            return
        self._version = self._store.version
        if self._queue is not None:
            self._queue.update()
        self._segments = [s for s in self._store.segments if s.length >= self._length]
        counts = [segment.length - self._length + 1 for segment in self._segments]
        self._ends = np.cumsum(counts, dtype=np.int64)

    def _choose(self) -> tuple[Segment, int]:
        """A segment and the position in it at which the window begins."""
        fresh = self._queue.pop() if self._queue is not None else None
        if fresh is not None:
            return fresh
        draw = int(self._rng.integers(self._total))
        at = int(np.searchsorted(self._ends, draw, side="right"))
        segment = self._segments[at]
        return segment, draw - int(self._ends[at]) + segment.length - self._length + 1

    def _gather(self, windows: list[tuple[Segment, int]]) -> Batch[np.ndarray]:
        rows = np.empty((len(windows), self._length + 1), np.int64)
        for i, (segment, start) in enumerate(windows):
            before = min(start, 1)  # without a context, the first step stands in for it
            rows[i, 1 - before :] = segment.rows(start - before, self._length + before)
            if not before:
                rows[i, 0] = rows[i, 1]
        steps = self._store.read(rows)
        has_context = np.array([start > 0 for _, start in windows])
        return make_batch(steps, self._store.observe(steps[:, 1:]), has_context)

    def state(self) -> dict[str, Any]:
        """What is needed to go on exactly, in plain containers and numbers."""
        with self._store.lock:
            self._update()
            queue = self._queue.state() if self._queue is not None else None
            return {"rng": self._rng.bit_generator.state, "queue": queue}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken; the store is refreshed already."""
        with self._store.lock:
            self._rng.bit_generator.state = state["rng"]
            if self._queue is not None and state["queue"] is not None:
                self._queue.load_state(state["queue"])
            self._version = -1
