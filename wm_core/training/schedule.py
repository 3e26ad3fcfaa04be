"""When something is due again: after a number of counts, and after CPU time."""

from __future__ import annotations

import time
from collections.abc import Callable


class Every:
    """Says when ``interval`` counts have passed since something was done last.

    Args:
        interval: of seconds, updates or steps; at 0 it is never due.
        last: the count at which it was done last.
    """

    def __init__(self, interval: float, last: float = 0.0) -> None:
        self.interval, self.last = interval, last

    def due(self, now: float) -> bool:
        """Whether it is due at the count ``now``."""
        return self.interval > 0 and now - self.last >= self.interval

    def done(self, now: float) -> None:
        """Count from ``now`` on."""
        self.last = now


class CpuTime:
    """Counts the CPU seconds of a run, those of its earlier processes included.

    Args:
        goal_s: when the run has used enough; None: never.
        beside: gives the CPU seconds of other processes of the run.
    """

    def __init__(self, goal_s: float | None, *, beside: Callable[[], float] = lambda: 0.0) -> None:
        self.goal_s, self._beside = goal_s, beside
        self._begun_s = time.process_time()

    def add(self, seconds: float) -> None:
        """Count what earlier processes of the run used."""
        self._begun_s -= seconds

    def seconds(self) -> float:
        """CPU seconds so far: learning, collecting, evaluating."""
        return time.process_time() - self._begun_s + self._beside()

    @property
    def used_up(self) -> bool:
        """Whether the goal is reached."""
        return self.goal_s is not None and self.seconds() >= self.goal_s
