"""Chooses the messages that become steps: those nearest to a grid at the rate of decisions.

Times are those of capture.  Where messages come about as often as decisions are wanted the grid
follows them, as a robot follows its camera; else it keeps its period and the nearest count.
"""

from __future__ import annotations

from collections import Counter, deque

from wm_core.contract.errors import RecordingError
from wm_ros.timing.rhythm import FEWEST, KEPT, usual

_ALIKE = 0.1  #: share by which the rate of messages and that of decisions may differ
_BACK_NS = 1_000_000_000  #: a stamp so far behind is of a clock that was set back
_SLOWEST = 1.4  #: periods between two messages, beyond which nearly every step would be a gap


class StepPace:
    """Says of each message of the topic that sets the pace whether it becomes a step.

    Args:
        topic: for errors.
        period_ns: of one agent step.
        guess_ns: between two messages, until they tell; 0: unknown.
    """

    def __init__(self, topic: str, period_ns: int, guess_ns: float = 0.0) -> None:
        self._topic, self._period_ns, self._guess_ns = topic, period_ns, guess_ns
        self._intervals: deque[int] = deque(maxlen=KEPT)
        self._last_ns: int | None = None
        self._due_ns: float | None = None
        self.left_out: Counter[str] = Counter()
        self.clock_set_back = 0
        self.between = 0  #: messages that came between two decisions

    @property
    def interval_ns(self) -> float:
        """Give the usual time between two messages; 0 while it is not known."""
        if len(self._intervals) < FEWEST:
            return min(self._guess_ns, float(self._period_ns))
        return usual(self._intervals)

    @property
    def cadence_ns(self) -> int:
        """Give the time between two steps: the period, or the messages' own, where they lead."""
        interval = self.interval_ns
        return round(interval) if self._follows(interval) else self._period_ns

    def takes(self, stamp_ns: int) -> bool:
        """Take a message into account, in the order of the bag; tell whether it is a step.

        Raises:
            RecordingError: where messages carry no stamps, or come too seldom for the rate of
                decisions.
        """
        if self._last_ns is not None:
            apart = stamp_ns - self._last_ns
            if apart == stamp_ns == 0:
                raise RecordingError(
                    f"messages on {self._topic} carry no stamp (0): the driver has to set it; "
                    "--log-times takes the times at which they were written instead"
                )
            if -_BACK_NS < apart <= 0:
                self.left_out["stamp_repeated" if apart == 0 else "stamp_out_of_order"] += 1
                return False
            if apart < 0:
                self.clock_set_back += 1
                self._due_ns = None
            else:
                self._intervals.append(apart)
        self._last_ns = stamp_ns
        interval = self.interval_ns
        self._check(interval)
        if self._due_ns is not None and stamp_ns < self._due_ns - interval / 2:
            self.between += 1
            return False
        late = self._due_ns is None or stamp_ns - self._due_ns > self._period_ns / 2
        begin = stamp_ns if late or self._follows(interval) else self._due_ns
        self._due_ns = (begin or 0) + self.cadence_ns
        return True

    def _follows(self, interval: float) -> bool:
        return interval > self._period_ns * (1 - _ALIKE)

    def _check(self, interval: float) -> None:
        if len(self._intervals) == KEPT and interval > _SLOWEST * self._period_ns:
            raise RecordingError(
                f"{self._topic} comes with {1e9 / interval:.3g} Hz, but the robot file asks for "
                f"{1e9 / self._period_ns:.3g} decisions per second; write rate_hz: "
                f"{1e9 / interval:.2g} or less into it"
            )
