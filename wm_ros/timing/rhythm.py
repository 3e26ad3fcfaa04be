"""Measures how often the messages of a topic come, and how many got lost; times are passed in.

Everything is judged over the last messages or seconds, so that what is over is forgotten: a camera
that was unplugged for a while, or one stamp of another clock.
"""

from __future__ import annotations

from collections import Counter, deque
from statistics import median

NS = 1_000_000_000
KEPT = 20  #: intervals from which the rate is known
RECENT = 5  #: the newest of them, which tell at once that the rate has changed
FEWEST = 2  #: intervals before which no rate is known
WINDOW_S = 30  #: seconds that a count looks back
PAUSE_NS = NS  #: a longer gap is a pause of the driver and no loss


class Window:
    """Counts things by name over the last ``WINDOW_S`` seconds, in bins of one second."""

    def __init__(self, seconds: int = WINDOW_S) -> None:
        self._seconds = seconds
        self._bins: deque[tuple[int, Counter[str]]] = deque()

    def add(self, now_ns: int, name: str, count: int = 1) -> None:
        """Count ``count`` things that happened at the steady time ``now_ns``."""
        second = now_ns // NS
        if not self._bins or self._bins[-1][0] != second:
            self._bins.append((second, Counter()))
            self._forget(second)
        self._bins[-1][1][name] += count

    def counts(self, now_ns: int) -> Counter[str]:
        """Give the counts of the last seconds."""
        self._forget(now_ns // NS)
        total: Counter[str] = Counter()
        for _, counts in self._bins:
            total.update(counts)
        return total

    def _forget(self, second: int) -> None:
        while self._bins and self._bins[0][0] <= second - self._seconds:
            self._bins.popleft()


def usual(intervals: deque[int]) -> float:
    """Estimate the interval that messages keep, in ns; 0.0 while there are too few of them.

    It is the mean, which 20 jittery intervals give to a percent; pauses and losses are left out.
    Where the newest few disagree by a quarter the rate has changed, and the others are dropped.
    """
    if len(intervals) < FEWEST:
        return 0.0
    middle = median(intervals)
    kept = [i for i in intervals if i <= 3 * middle]
    mean = sum(kept) / len(kept)
    recent = median(list(intervals)[-RECENT:])
    if abs(recent - mean) <= mean / 4:
        return mean
    while len(intervals) > RECENT or abs(intervals[0] - recent) > recent / 4:
        intervals.popleft()
        if len(intervals) == FEWEST:
            break
    return float(recent)


class Rhythm:
    """Says how often messages come by the steady clock, and how far their stamps lie apart."""

    def __init__(self) -> None:
        self._arrivals: deque[int] = deque(maxlen=KEPT)
        self._stamps: deque[int] = deque(maxlen=KEPT)
        self._arrived_ns = self._stamp_ns = self._heard = 0
        self._window = Window()
        self.jumped = False  #: the newest stamp lies much further on than its arrival, or behind
        self.lost = 0  #: messages that never came, by their stamps, since the start
        self.interval_ns = 0.0  #: usual wall time between two; 0.0 while it is not known
        self.stamp_interval_ns = 0.0  #: usual distance of two stamps; 0.0 while it is not known

    @property
    def loosest_ns(self) -> int:
        """Give the second longest of the last intervals: one hiccup is none."""
        return sorted(self._arrivals)[-2] if len(self._arrivals) > FEWEST else 0

    @property
    def shortest_ns(self) -> int:
        """Give the second shortest of the last intervals; 0 while too few are known."""
        return sorted(self._arrivals)[1] if len(self._arrivals) > FEWEST else 0

    @property
    def known(self) -> bool:
        """Tell whether enough messages came to know their rate."""
        return len(self._arrivals) > FEWEST

    @property
    def exact(self) -> bool:
        """Tell whether enough messages came to know their rate to a percent or so."""
        return len(self._arrivals) == KEPT

    @property
    def sure(self) -> bool:
        """Tell whether enough messages came to refuse a rate."""
        return self._heard > RECENT

    def add(self, now_ns: int, stamp_ns: int) -> None:
        """Note a message that came at the steady time ``now_ns``."""
        self._heard += 1
        if self._arrived_ns:
            arrived, stamped = now_ns - self._arrived_ns, stamp_ns - self._stamp_ns
            self.jumped = stamped < 0 or self._too_far(arrived, stamped)
            self._judge(now_ns, arrived, stamped)
            self._arrivals.append(arrived)
            self.interval_ns = usual(self._arrivals)
            if stamped > 0 and not self.jumped:
                self._stamps.append(stamped)
                self.stamp_interval_ns = usual(self._stamps)
        self._window.add(now_ns, "came")
        self._arrived_ns, self._stamp_ns = now_ns, stamp_ns

    def _too_far(self, arrived: int, stamped: int) -> bool:
        """Tell whether two stamps lie much further apart than their messages can explain."""
        if not self.stamp_interval_ns or not self.interval_ns:
            return stamped > 10 * max(arrived, PAUSE_NS)
        pace = max(1.0, self.stamp_interval_ns / self.interval_ns)  # of simulated time
        return stamped > 10 * self.stamp_interval_ns + 4 * pace * arrived

    def _judge(self, now_ns: int, arrived: int, stamped: int) -> None:
        base = sorted(self._stamps)[len(self._stamps) // 5] if self._stamps else 0
        if self.jumped:
            self._window.add(now_ns, "jumps")
        elif arrived > max(PAUSE_NS, 4 * self.interval_ns):
            self._window.add(now_ns, "pauses")
        elif base and stamped > base * 3 // 2 and arrived > self.interval_ns * 1.25:
            lost = round(stamped / base) - 1
            self.lost += lost
            self._window.add(now_ns, "lost", lost)

    def counts(self, now_ns: int) -> Counter[str]:
        """Count what happened in the last seconds: came, lost, pauses, jumps."""
        return self._window.counts(now_ns)

    def rate_hz(self, now_ns: int) -> float:
        """Give messages per second; 0.0 before it is known and after three silent intervals."""
        if not self.interval_ns or now_ns - self._arrived_ns > 3 * self.interval_ns + NS:
            return 0.0
        return NS / self.interval_ns
