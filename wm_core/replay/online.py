"""Queues new windows, those that were never trained on, in the order of their arrival."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from wm_core.store.reader import Store
from wm_core.store.segments import Segment

MAX_WINDOWS = 4096  #: windows that may wait; the oldest leave, the selector draws them anyway
MAX_OPEN = 4096  #: runs kept that are too short for a window so far


class OnlineQueue:
    """Cuts arriving steps into windows that do not overlap, and gives each out once, in order.

    Steps that are too few for a window wait for those that follow.  Where none can follow any
    more, because a late chunk filled a gap, a window that overlaps its neighbours is made.

    Args:
        store: what is there already counts as trained on.
        length: T, steps of a window.
    """

    def __init__(self, store: Store, length: int) -> None:
        self._store, self._length = store, length
        self._windows: deque[int] = deque(maxlen=MAX_WINDOWS)  # key of the first step
        self._open: dict[int, int] = {}  # key of the first step -> steps
        self._row, self._arrival = store.end_row, store.arrival

    def update(self) -> None:
        """Take notice of the steps that have arrived."""
        new = self._store.runs_from(self._row)
        self._row, self._arrival = self._store.end_row, self._store.arrival
        runs = _joined([*self._open.items(), *new])
        self._open = {}
        for key, count in runs:
            whole = count - count % self._length
            self._windows.extend(range(key, key + whole, self._length))
            if whole < count:
                self._leave(key + whole, count - whole)
        while len(self._open) > MAX_OPEN:
            del self._open[next(iter(self._open))]

    def _leave(self, key: int, count: int) -> None:
        """Keep a run that is too short, or cover it now if nothing can follow it."""
        found = self._store.find(key)
        if found is None:
            return
        segment, start = found
        if start + count == segment.length:
            self._open[key] = count
        elif segment.length >= self._length:
            self._windows.append(key - max(0, start - (segment.length - self._length)))

    def pop(self) -> tuple[Segment, int] | None:
        """Take the window that waits longest as its segment and start; None without any."""
        while self._windows:
            found = self._store.find(self._windows.popleft())
            if found is not None and found[1] + self._length <= found[0].length:
                return found
        return None

    def waiting(self) -> list[int]:
        """List the windows that wait, by the keys of their first steps."""
        return list(self._windows)

    def put_back(self, waiting: list[int]) -> None:
        """Have exactly those windows wait that ``waiting`` listed."""
        self._windows = deque(waiting, maxlen=MAX_WINDOWS)

    def __len__(self) -> int:
        return len(self._windows)

    def state(self) -> dict[str, Any]:
        """Give what it needs to go on, in plain numbers."""
        return {
            "windows": list(self._windows),
            "open": [list(run) for run in self._open.items()],
            "arrival": self._arrival,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken; what has arrived since is new."""
        self._windows = deque(map(int, state["windows"]), maxlen=MAX_WINDOWS)
        self._open = {int(key): int(count) for key, count in state["open"]}
        self._arrival = int(state["arrival"])
        self._row = self._store.row_after(self._arrival)


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sort ``runs`` of (key, count), and join those that touch."""
    out: list[tuple[int, int]] = []
    for key, count in sorted(runs):
        if out and out[-1][0] + out[-1][1] == key:
            out[-1] = (out[-1][0], out[-1][1] + count)
        else:
            out.append((key, count))
    return out
