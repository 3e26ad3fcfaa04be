"""Draws batches of windows: every new one once, and then those that a selector chooses."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.contract.errors import StoreError
from wm_core.replay.batch import NO_CONTEXT, make_batch
from wm_core.replay.interventions import InterventionWindows
from wm_core.replay.online import OnlineQueue
from wm_core.replay.selectors import Selector, Uniform
from wm_core.replay.settings import UniformConfig
from wm_core.store.frames import BlockLost
from wm_core.store.reader import Store
from wm_core.store.segments import Segment


class ChosenWindows(NamedTuple):
    """Windows by the keys of their steps, which are the same in every copy of a store."""

    first: np.ndarray  #: (B,) int64 key of the first step of each
    has_context: np.ndarray  #: (B,) bool, whether the step before it belongs to it

    @property
    def context(self) -> np.ndarray:
        """(B,) int64 keys of the steps before the windows; ``NO_CONTEXT`` where there is none."""
        return np.where(self.has_context, self.first - 1, NO_CONTEXT)


class Sampler:
    """Draws batches of windows from a store that may grow meanwhile.

    A window is T valid steps within a segment.

    Args:
        store: refreshed by whoever owns it.
        batch: B, windows per batch.
        length: T, steps per window.
        rng: of the draws; the selector's too.
        online_queue: windows that arrive from now on come first, once each, in their order.
        selector: chooses the other windows; None: every one is equally likely.
        interventions: has a share of those drawn from windows with an intervention; None: no.
    """

    def __init__(
        self,
        store: Store,
        *,
        batch: int,
        length: int,
        rng: np.random.Generator,
        online_queue: bool = True,
        selector: Selector | None = None,
        interventions: InterventionWindows | None = None,
    ) -> None:
        self._store, self._batch, self._length, self._rng = store, batch, length, rng
        self._queue = OnlineQueue(store, length) if online_queue else None
        self.selector = selector or Uniform(UniformConfig(), rng)
        self._interventions = interventions
        self._version = -1
        self._segments: list[Segment] = []
        self._ends = np.zeros(0, np.int64)  # windows up to and including each segment

    def can_sample(self) -> bool:
        """Tell whether the store holds at least one window."""
        with self._store.lock:
            self._update()
            return self._total > 0

    def choose(self) -> ChosenWindows:
        """Choose B windows that are not read yet, for workers who read a share each.

        Raises:
            StoreError: where the store holds no window of T steps.
        """
        with self._store.lock:
            self._update()
            if not self._total:
                raise self._no_window()
            windows = self._choose()
        first = [(s.session << 32) + s.first_index + start for s, start in windows]
        return ChosenWindows(
            np.array(first, np.int64), np.array([start > 0 for _, start in windows])
        )

    def read(self, choice: ChosenWindows) -> Batch[np.ndarray] | None:
        """Read the windows of ``choice``, (B, T, ...); None where this store lacks one of them."""
        with self._store.lock:
            windows = []
            for key, has_context in zip(choice.first.tolist(), choice.has_context, strict=True):
                found = self._store.find(key)
                if found is None or found[1] + self._length > found[0].length:
                    return None
                if has_context and not found[1]:
                    return None
                windows.append(found)
            try:
                return self._gather(windows, choice.has_context)
            except BlockLost:
                return None

    def sample(self) -> Batch[np.ndarray]:
        """Draw B windows of T steps, arrays (B, T, ...), and the context before each.

        Raises:
            StoreError: where the store holds no window of T steps.
        """
        while True:
            with self._store.lock:
                self._update()
                if not self._total:
                    raise self._no_window()
                try:
                    return self._gather(self._choose())
                except BlockLost:  # the store has left it out by now
                    continue

    def _no_window(self) -> StoreError:
        return StoreError(
            f"{self._store.root} holds {self._store.steps} steps, but no run of "
            f"{self._length} valid ones without a gap; collect more"
        )

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
        first = [segment.session << 32 | segment.first_index for segment in self._segments]
        self.selector.refresh(np.array(first, np.int64), np.array(counts, np.int64))
        if self._interventions is not None:
            self._interventions.refresh(self._segments)

    def _choose(self) -> list[tuple[Segment, int]]:
        """Choose B windows, each as its segment and the position in it at which it begins."""
        windows: list[tuple[Segment, int]] = []
        while self._queue is not None and len(windows) < self._batch:
            fresh = self._queue.pop()
            if fresh is None:
                break
            windows.append(fresh)
        for position in self._positions(self._batch - len(windows)):
            at = int(np.searchsorted(self._ends, position, side="right"))
            segment = self._segments[at]
            start = position - int(self._ends[at]) + segment.length - self._length + 1
            windows.append((segment, start))
        return windows

    def _positions(self, n: int) -> list[int]:
        """Draw ``n`` windows as positions among all, counted segment after segment."""
        chosen: list[int] = []
        if self._interventions is not None:
            chosen += self._interventions.choose(n, self._rng).tolist()
        return chosen + self.selector.choose(n - len(chosen)).tolist()

    def _gather(
        self, windows: list[tuple[Segment, int]], has_context: np.ndarray | None = None
    ) -> Batch[np.ndarray]:
        if has_context is None:
            has_context = np.array([start > 0 for _, start in windows])
        rows = np.empty((len(windows), self._length + 1), np.int64)
        for i, (segment, start) in enumerate(windows):
            before = int(has_context[i])  # without a context, the first step stands in for it
            rows[i, 1 - before :] = segment.rows(start - before, self._length + before)
            if not before:
                rows[i, 0] = rows[i, 1]
        steps = self._store.read(rows)
        return make_batch(steps, self._store.observe(steps[:, 1:]), has_context)

    def take_losses(self, keys: np.ndarray, losses: np.ndarray) -> None:
        """Pass the losses (B,) of windows that were trained on, ``keys`` (B,), to the selector."""
        self.selector.update(keys, losses)

    def close(self) -> None:
        """Release what it holds; a second call does nothing."""

    def state(self) -> dict[str, Any]:
        """Give what it needs to go on exactly, in plain containers and numbers."""
        with self._store.lock:
            self._update()
            queue = self._queue.state() if self._queue is not None else None
            selector = self.selector.state()
            return {"rng": self._rng.bit_generator.state, "queue": queue, "selector": selector}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken; the store is refreshed already."""
        with self._store.lock:
            self._rng.bit_generator.state = state["rng"]
            if self._queue is not None and state["queue"] is not None:
                self._queue.load_state(state["queue"])
            if state.get("selector") is not None:
                self.selector.load_state(state["selector"])
            self._version = -1
