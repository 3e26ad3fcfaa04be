"""Decides when the policy ticks; every clock reading is passed in.

All times are integer nanoseconds.  ``now_ns`` is always the steady (monotonic) clock: a watchdog
on simulated time would stop together with the simulator that it watches.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from wm_ros.timing.rhythm import NS, Rhythm

PHASE_NS = 4_000_000  #: from a frame's arrival to its tick (at most a tenth of a period)
ALIGN_TICKS = 40  #: ticks between two looks at the phase
SLOWER = 1.006  #: a camera whose interval is so many periods is slower than the policy
SLOWER_AT_FIRST = 1.25  #: the same while few frames came, whose jitter counts
SLOWEST_PERIODS = 5  #: most periods that a command is repeated for a slow camera ...
SLOWEST_NS = NS // 2  #: ... and longest time
EARLY = 0.9  #: of a period: two decisions are never closer
UNKNOWN_NS = 2 * NS  #: silence of a simulator whose speed is not known yet
LONGEST_SILENCE_NS = 5 * NS  #: of a slow simulator, which is stopped behind it at the latest


@dataclass(frozen=True, slots=True)
class Due:
    """Describes one tick that has to run now."""

    scheduled_ns: int  #: steady time at which it should have begun
    period_ns: int  #: wall time of one period: a command that leaves later than this is missed
    skipped: int  #: older schedules that no tick will ever serve: missed
    fresh: bool  #: a frame came since the last tick


@dataclass(frozen=True, slots=True)
class Pace:
    """Says how ticks follow the camera.

    With ``frame_wait`` 0.7 the safe action of a silent camera comes within two of its periods.
    """

    period_ns: int  #: of one agent step
    frame_wait: float = 0.7  #: share of a period that a tick waits for a late frame
    max_gap_ns: int = 0  #: time that a command is repeated without a frame; 0: as is measured
    follow: bool = True  #: a camera slower than the policy is followed; else it stops the robot

    @property
    def bound_ns(self) -> int:
        """Give the longest time that a command is repeated."""
        bound = min(SLOWEST_PERIODS * self.period_ns, SLOWEST_NS)
        return self.max_gap_ns or max(bound, self.wait_ns(self.period_ns))

    def wait_ns(self, interval_ns: float) -> int:
        """Give the time behind a frame after which the next one is overdue."""
        return int(interval_ns * (1 + self.frame_wait))


class Pacer:
    """Says when the next tick runs, in real time.

    Ticks lie on a fixed grid of the steady clock.  The grid's phase is taken from the
    camera: camera and policy run at the same rate, so with an arbitrary phase the newest frame can
    be a whole period old, and when both events fall together scheduling jitter flips their order,
    so that one tick sees the same frame twice and the next one skips a frame.  A grid a few
    milliseconds behind the camera has young frames and room for jitter.  It is aligned to the
    first frame (after any silence) and then only moved when 40 ticks in a row agree that the phase
    has drifted.  A tick whose frame is late waits for it, at most ``frame_wait`` of a period.

    A camera that is slower than the policy is followed: each frame is one decision, and in between
    ticks without a frame have the command repeated, until the next frame is overdue.

    Args:
        pace: period and how the camera is followed.
        now_ns: steady time at the start; until a first frame ticks run at once, without a frame.
        rhythm: of the camera, which may know its rate already; a new one if left out.
    """

    def __init__(self, pace: Pace, now_ns: int, rhythm: Rhythm | None = None) -> None:
        self.pace, self.period_ns = pace, pace.period_ns
        self.rhythm = Rhythm() if rhythm is None else rhythm
        self.slow = False  #: the camera is slower than the policy, and is followed
        self.too_slow = False  #: it is so slow that it is not followed
        self._phase_ns = min(PHASE_NS, pace.period_ns // 10)
        self._due_ns = now_ns
        self._fresh_ns: int | None = None  # steady arrival of a frame that no tick has used
        self._last_frame_ns = self._decided_ns = -(10**18)
        self._silent = True  # no frame yet, or the last tick had none
        self._leads: deque[int] = deque(maxlen=ALIGN_TICKS)
        self._judge_rate()

    # ------------------------------------------------------------------------------- the camera

    @property
    def interval_ns(self) -> float:
        """Give the time between two frames as stamps count it; 0.0 while it is not known."""
        return self.rhythm.interval_ns

    @property
    def cadence_ns(self) -> int:
        """Give the time between two decisions as stamps count it."""
        return int(self.interval_ns) if self.slow else self.period_ns

    @property
    def hold_ns(self) -> int:
        """Give the wall time behind a frame up to which a slow camera is waited for."""
        return self.pace.max_gap_ns or min(self.pace.wait_ns(self.interval_ns), self.pace.bound_ns)

    @property
    def gap_ns(self) -> int:
        """Give the wall time behind a frame up to which its command may be repeated."""
        return self.hold_ns if self.slow else self.pace.max_gap_ns or self.period_ns

    def _judge_rate(self) -> None:
        """See whether the camera is slower than the policy; with some play, so that it lasts."""
        interval, period = self.interval_ns, self.period_ns
        limit = self.pace.bound_ns / 1.1 if self.pace.follow else period * 1.1
        limit *= 0.9 if self.too_slow else 1.0
        self.too_slow = self.rhythm.sure and interval > limit
        slower = SLOWER if self.rhythm.exact else SLOWER_AT_FIRST
        self.slow = period * (1.003 if self.slow else slower) < interval <= limit

    def on_frame(self, now_ns: int, stamp_ns: int) -> None:
        """Remember that a frame with this stamp arrived."""
        followed, waiting = self.slow, self._fresh_ns is not None
        self.rhythm.add(now_ns, stamp_ns)
        self._judge_rate()
        self._fresh_ns = self._last_frame_ns = now_ns
        if self._silent or ((self.slow or followed) and not waiting):
            earliest = self._decided_ns + int(EARLY * self.period_ns)
            self._due_ns = max(now_ns + self._phase_ns, earliest)
            self._silent = False
            self._leads.clear()

    def earliest_ns(self) -> int | None:
        """Give the earliest steady time at which the next frame may come; None: not known.

        It is None once that frame has come, and on a silent camera.
        """
        if self._fresh_ns is not None or self._silent or not self.rhythm.shortest_ns:
            return None
        return self._last_frame_ns + self.rhythm.shortest_ns

    # -------------------------------------------------------------------------------- the ticks

    def next_call_ns(self) -> int:
        """Give the steady time at which ``poll`` has to be called; earlier when a frame comes."""
        if self._fresh_ns is not None or self._silent:
            return self._due_ns
        if self.slow:
            return min(self._due_ns, self._last_frame_ns + self.hold_ns)
        late = self._due_ns + int(self.period_ns * self.pace.frame_wait)
        overdue = self._last_frame_ns + self.pace.wait_ns(self.period_ns)
        return max(self._due_ns, min(late, overdue))

    def poll(self, now_ns: int, ros_ns: int = 0) -> Due | None:
        """Give the tick to run now; None before its time or while its frame may come.

        Args:
            now_ns: steady time.
            ros_ns: ROS time, which may be simulated.
        """
        if now_ns < self.next_call_ns():
            return None
        fresh, self._fresh_ns = self._fresh_ns, None
        if self.slow and not self._silent:
            return self._follow(now_ns, fresh is not None)
        skipped = max(0, now_ns - self._due_ns) // self.period_ns
        scheduled = self._due_ns + skipped * self.period_ns
        self._due_ns = scheduled + self.period_ns
        if fresh is not None:
            self._align(scheduled - fresh)
            self._decided_ns = now_ns
        self._silent = fresh is None
        return Due(scheduled, self.period_ns, skipped, fresh is not None)

    def _follow(self, now_ns: int, fresh: bool) -> Due:
        """Tick behind a frame of a slow camera, or between two of them."""
        if fresh:
            scheduled, self._decided_ns = self._due_ns, now_ns
            soon = self.cadence_ns < self.period_ns * 3 // 2  # the next frame, before a repeat
            repeat = self.period_ns * 3 // 2 if soon else self.period_ns
            self._due_ns = max(scheduled, now_ns) + repeat
            return Due(scheduled, self.cadence_ns, 0, fresh=True)
        self._silent = now_ns >= self._last_frame_ns + self.hold_ns
        self._due_ns = now_ns + self.period_ns
        return Due(now_ns, self.period_ns, 0, fresh=False)

    def _align(self, lead_ns: int) -> None:
        """Move the grid where the frames of all the last ticks came too early or too late."""
        self._leads.append(lead_ns)
        if len(self._leads) < ALIGN_TICKS:
            return
        error = min(self._leads) - self._phase_ns
        if error > self._phase_ns or (error < -self._phase_ns and max(self._leads) < 0):
            quarter = self.period_ns // 4
            self._due_ns -= max(-quarter, min(quarter, error))
        self._leads.clear()


class SimulatedPacer(Pacer):
    """Says when the next tick runs where the frames carry simulated time.

    Their stamps are the grid, so the rate follows a simulation that runs faster or slower than the
    wall.  The steady clock watches for silence all the same: a frame is overdue behind 1.7 times
    the usual wall time between two (never less than 1.7 periods, nor more than five seconds), so
    that a simulation of a twentieth of real time runs without a stop, and one at full speed stops
    within two periods.  Until three frames told the speed, two seconds are waited.
    """

    def __init__(self, pace: Pace, now_ns: int, rhythm: Rhythm | None = None) -> None:
        super().__init__(pace, now_ns, rhythm)
        self._due_stamp_ns: int | None = None
        self._stamp_ns = 0

    @property
    def interval_ns(self) -> float:
        return self.rhythm.stamp_interval_ns

    @property
    def wall_ns(self) -> int:
        """Give the wall time of one simulated period."""
        rhythm = self.rhythm
        if not rhythm.interval_ns or not rhythm.stamp_interval_ns:
            return self.period_ns
        speed = rhythm.interval_ns / rhythm.stamp_interval_ns
        return max(1, int(self.period_ns * speed))

    @property
    def hold_ns(self) -> int:
        pace, rhythm = self.pace, self.rhythm
        least = pace.wait_ns(self.period_ns)
        if not rhythm.known:
            return max(least, UNKNOWN_NS)
        if rhythm.interval_ns < 1.05 * self.period_ns:
            return least  # at full speed
        loosest = min(1.25 * rhythm.loosest_ns, 1.9 * rhythm.interval_ns)
        usual = max(pace.wait_ns(rhythm.interval_ns), int(loosest))
        return max(least, min(usual, LONGEST_SILENCE_NS))

    def on_frame(self, now_ns: int, stamp_ns: int) -> None:
        restarted = stamp_ns < self._stamp_ns
        self.rhythm.add(now_ns, stamp_ns)
        self._judge_rate()
        begins = restarted or self.rhythm.jumped or self._silent or self.slow
        if self._due_stamp_ns is None or begins:
            self._due_stamp_ns = stamp_ns
        self._stamp_ns, self._last_frame_ns, self._silent = stamp_ns, now_ns, False
        if self._fresh_ns is None and stamp_ns >= self._due_stamp_ns - self.period_ns // 4:
            self._fresh_ns = now_ns

    def earliest_ns(self) -> int | None:
        return None  # the simulated clock stands still while the policy thinks

    def next_call_ns(self) -> int:
        if self._fresh_ns is not None:
            return self._fresh_ns
        if self._silent:
            return self._due_ns
        overdue = self._last_frame_ns + self.hold_ns
        return min(self._due_ns, overdue) if self.slow else overdue

    def poll(self, now_ns: int, ros_ns: int = 0) -> Due | None:
        if self._fresh_ns is not None and self._due_stamp_ns is not None:
            ahead = self._stamp_ns - self._due_stamp_ns + self.period_ns // 4
            skipped = max(0, ahead // self.period_ns)
            self._due_stamp_ns += (skipped + 1) * self.period_ns
            wall = self.wall_ns * (self.cadence_ns / self.period_ns)
            due = Due(self._fresh_ns, int(wall), skipped, fresh=True)
            self._fresh_ns, self._due_ns = None, now_ns + self.wall_ns
            return due
        if now_ns < self.next_call_ns():
            return None
        self._silent = self._silent or now_ns >= self._last_frame_ns + self.hold_ns
        self._due_ns = now_ns + (self.period_ns if self._silent else self.wall_ns)
        return Due(now_ns, self.period_ns, 0, fresh=False)


class TimerPacer(Pacer):
    """Says when the next tick runs where no sensor sets the pace: on a grid of the clock.

    Every tick is fresh, but where simulated time stands still.
    """

    def __init__(self, pace: Pace, now_ns: int, *, simulated: bool) -> None:
        super().__init__(pace, now_ns)
        self._simulated = simulated
        self._ros_ns = self._due_ros_ns = 0
        self._moved_ns = self._asked_ns = now_ns

    def next_call_ns(self) -> int:
        if not self._simulated:
            return self._due_ns
        speed = max(1.0, self.period_ns / max(1.0, self.rhythm.interval_ns or self.period_ns))
        return self._asked_ns + max(NS // 2000, int(self.period_ns / (8 * speed)))

    def earliest_ns(self) -> int | None:
        return None if self._simulated else self._due_ns

    def poll(self, now_ns: int, ros_ns: int = 0) -> Due | None:
        if self._simulated:
            return self._poll_clock(now_ns, ros_ns)
        if now_ns < self._due_ns:
            return None
        skipped = (now_ns - self._due_ns) // self.period_ns
        scheduled = self._due_ns + skipped * self.period_ns
        self._due_ns = scheduled + self.period_ns
        return Due(scheduled, self.period_ns, skipped, fresh=True)

    def _poll_clock(self, now_ns: int, ros_ns: int) -> Due | None:
        self._asked_ns = now_ns
        moved = ros_ns - self._ros_ns
        if moved:
            self._ros_ns, self._moved_ns = ros_ns, now_ns
        if not 0 <= self._due_ros_ns - ros_ns <= self.period_ns:  # due, or the clock jumped
            late = ros_ns - self._due_ros_ns
            jumped = not 0 <= late <= SLOWEST_PERIODS * self.period_ns
            skipped = 0 if jumped else late // self.period_ns
            self._due_ros_ns = ros_ns + self.period_ns - (0 if jumped else late % self.period_ns)
            self.rhythm.add(now_ns, ros_ns)
            wall = int(self.rhythm.interval_ns) or self.period_ns
            return Due(now_ns, max(1, wall), skipped, fresh=True)
        if now_ns - self._moved_ns < max(self.pace.wait_ns(self.period_ns), NS):
            return None
        if now_ns < self._due_ns:
            return None
        self._due_ns = now_ns + self.period_ns
        return Due(now_ns, self.period_ns, 0, fresh=False)
