"""Finds the newest episode of a store that is long enough to be looked at, and reads its end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.replay.sampler import ChosenWindows, Sampler
from wm_core.store.index import step_number
from wm_core.store.reader import Store
from wm_core.store.segments import Segment

LOOK_BACK = 4096  #: newest steps of the store among which the episode is looked for
FEWEST = 4  #: steps of the shortest window


class NewestWindow(NamedTuple):
    """The last steps of the newest episode."""

    batch: Batch[np.ndarray]  #: one window (1, T, ...)
    robot: str
    session: str
    first_step: int  #: number within the session of the window's first step


def newest_window(store: Store, length: int, least: int) -> NewestWindow | None:
    """Read up to ``length`` last steps of the newest episode that has ``least``.

    Where none of the newest steps belong to an episode of so many, the longest one counts; an
    episode that still goes on counts as far as it has arrived.

    Args:
        store: refreshed by whoever owns it; nothing of it changes.
        length: T at most.
        least: steps of an episode that is long enough.

    Returns:
        None where no episode has ``FEWEST`` steps, or its files have gone.
    """
    with store.lock:
        longest: tuple[int, Segment, int, int] | None = None
        for segment, start, end in _episodes(store):
            if longest is None or end - start > longest[0]:
                longest = end - start, segment, start, end
            if longest[0] >= least:
                break
        if longest is None or longest[0] < FEWEST:
            return None
        _, segment, start, end = longest
        begin = max(start, end - length)
        key = (segment.session << 32) + segment.first_index + begin
        chosen = ChosenWindows(np.array([key]), np.array([begin > start]))
        rng = np.random.default_rng(0)  # nothing is drawn
        sampler = Sampler(store, batch=1, length=end - begin, rng=rng, online_queue=False)
        batch = sampler.read(chosen)
        if batch is None:
            return None
        robot, session = store.sessions[segment.session]
    return NewestWindow(batch, robot, session, segment.first_index + begin)


def _episodes(store: Store) -> list[tuple[Segment, int, int]]:
    """List (segment, start, end) of the episodes among the newest steps, the newest first."""
    found, known = list[tuple[Segment, int, int]](), set[int]()
    for key, count in store.runs_from(max(0, store.end_row - LOOK_BACK)):
        place = store.find(key)
        if place is None or id(place[0]) in known:
            continue
        segment, end = place[0], place[1] + count
        known.add(id(segment))
        begin = max(0, end - LOOK_BACK)
        first = step_number(store.read(segment.rows(begin, end - begin)), "is_first")
        starts = sorted({0, *np.flatnonzero(first).tolist()})
        ends = [*starts[1:], end - begin]
        pairs = zip(reversed(starts), reversed(ends), strict=True)
        found += [(segment, begin + a, begin + b) for a, b in pairs]
    return found
