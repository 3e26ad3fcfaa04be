"""Plans dry runs of the policy, each just before the next tick; no ROS.

Between two ticks other programs push the policy's weights out of the processor's caches, and the
next step waits for the memory.  A dry run brings them back; its answer is thrown away.  It can
delay no tick: it is planned to be over before the earliest moment at which a frame may come, by as
long as the slowest of the last dry runs took and a margin, and one that would begin late is left
out.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from wm_ros.settings import RealtimeSettings

MARGIN_NS = 1_000_000  #: from the end of a dry run to the earliest frame
LATE_NS = MARGIN_NS // 2  #: a dry run may begin so much later than planned
WORTH_NS = 300_000  #: a step that takes less finds its weights in the caches anyway
LARGEST_SHARE = 0.25  #: of a period that a dry run may take
FEWEST = 5  #: dry runs before which it is not known whether they are worth their time
KEPT = 50  #: dry runs of which the longest is planned for
AGAIN_TICKS = 2000  #: ticks after which a policy that was not worth it is looked at again


class WarmUp:
    """Says when the next dry run begins, if one is worth its time.

    Attributes:
        at_ns: steady time at which it begins; None: none is planned.
        count: dry runs so far.
    """

    def __init__(self, mode: str = RealtimeSettings().warm_up) -> None:
        self.mode, self.count = mode, 0
        self.at_ns: int | None = None
        self._costs: deque[int] = deque(maxlen=KEPT)
        self._waits = 0  # ticks until a policy is looked at again

    def plan(
        self, earliest_ns: int | None, now_ns: int, *, period_ns: int, work_ns: float
    ) -> None:
        """Plan the dry run that follows a tick.

        Args:
            earliest_ns: steady time at which the next frame or tick may come; None: not known.
            now_ns: steady time.
            period_ns: between two ticks.
            work_ns: what a tick usually takes: more than a dry run.
        """
        self.at_ns = None
        if earliest_ns is None or not self._wanted():
            return
        cost = max(self._costs, default=int(work_ns))
        begin = earliest_ns - MARGIN_NS - cost
        if 0 < cost <= LARGEST_SHARE * period_ns and begin > now_ns:
            self.at_ns = begin

    def due(self, now_ns: int) -> bool:
        """Tell whether the planned dry run begins now; one whose time has passed is given up."""
        if self.at_ns is None or now_ns < self.at_ns:
            return False
        late, self.at_ns = now_ns - self.at_ns, None
        return late <= LATE_NS

    def ran(self, took_ns: int) -> None:
        """Note that a dry run took ``took_ns``."""
        self.count += 1
        self._costs.append(took_ns)

    def drop(self) -> None:
        """Give up what is planned: a frame has come."""
        self.at_ns = None

    def forget(self) -> None:
        """Measure anew: another policy runs."""
        self._costs.clear()
        self._waits, self.at_ns = 0, None

    def _wanted(self) -> bool:
        if self.mode != "auto":
            return self.mode == "on"
        if self._waits:
            self._waits -= 1
        elif len(self._costs) >= FEWEST and median(self._costs) < WORTH_NS:
            self._costs.clear()
            self._waits = AGAIN_TICKS
        return not self._waits
