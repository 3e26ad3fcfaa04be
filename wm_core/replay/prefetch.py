"""Draws the next batch while the present one is learnt from, and draws the same batches.

What the next draw will be is computed ahead from a copy of the sampler's state, and read in a
thread.  It becomes the next batch only where nothing has changed the store meanwhile; else it is
dropped and drawn anew.  So the batches, and what a checkpoint holds, are those of a sampler that
draws nothing ahead.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.replay.sampler import Sampler
from wm_core.replay.selectors import Uniform
from wm_core.store.frames import BlockLost


class _Ahead(NamedTuple):
    """Is a batch that is being read, with where the sampler will stand when it is drawn."""

    version: int  # of the store
    before: Mapping[str, Any]  # position of the generator, from which it was drawn ...
    after: Mapping[str, Any]  # ... and behind it
    waiting: list[int]  # windows that are left in the online queue
    batch: Future[Batch[np.ndarray] | None]


class PrefetchingSampler(Sampler):
    """Draws as a ``Sampler`` does, one batch ahead in a thread; ``close`` ends the thread.

    A selector that learns from losses needs those of each batch before it chooses the next:
    beside such a one nothing is drawn ahead.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: _Ahead | None = None
        self.hits = self.misses = 0  #: batches that were ready or on their way; that were not

    def sample(self) -> Batch[np.ndarray]:
        batch = self._drawn_ahead()
        if batch is None:
            self.misses += 1
            batch = super().sample()
        else:
            self.hits += 1
        self._draw_ahead()
        return batch

    def load_state(self, state: dict[str, Any]) -> None:
        self._ahead = None
        super().load_state(state)

    def close(self) -> None:
        """End the thread; a second call does nothing."""
        self._ahead = None
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
            self._thread = None

    def _drawn_ahead(self) -> Batch[np.ndarray] | None:
        """Take over the batch that was drawn ahead; None where it is not the next one any more."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead.version != self._store.version:
            return None
        batch = ahead.batch.result()
        with self._store.lock:
            self._update()
            moved = self._rng.bit_generator.state != ahead.before
            if batch is None or moved or ahead.version != self._store.version:
                return None
            self._rng.bit_generator.state = ahead.after
            if self._queue is not None:
                self._queue.put_back(ahead.waiting)
        return batch

    def _draw_ahead(self) -> None:
        if not (isinstance(self.selector, Uniform) and self.selector.rng is self._rng):
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        with self._store.lock:
            self._update()
            if not self._total:
                return
            before, queue = self._rng.bit_generator.state, self._queue
            waiting = [] if queue is None else queue.waiting()
            windows = self._choose()
            after = self._rng.bit_generator.state
            left = [] if queue is None else queue.waiting()
            self._rng.bit_generator.state = before
            if queue is not None:
                queue.put_back(waiting)
            version = self._store.version
        self._ahead = _Ahead(
            version, before, after, left, self._thread.submit(self._read_ahead, version, windows)
        )

    def _read_ahead(self, version: int, windows: list[Any]) -> Batch[np.ndarray] | None:
        """Read the ``windows`` of a store that is still at ``version``; None where it is not."""
        with self._store.lock:
            if self._store.version != version:
                return None
            try:
                return self._gather(windows)
            except BlockLost:
                return None
