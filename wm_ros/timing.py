"""Decides when the policy ticks and measures how late it was; every clock reading is passed in.

All times are integer nanoseconds.  ``now_ns`` is always the steady (monotonic) clock: a watchdog
on simulated time would stop together with the simulator that it watches.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque
from dataclasses import dataclass

PHASE_NS = 4_000_000  #: from a frame's arrival to its tick (at most a tenth of a period)
ALIGN_TICKS = 40  #: ticks between two looks at the phase


@dataclass(frozen=True, slots=True)
class Due:
    """Describes one tick that has to run now."""

    scheduled_ns: int  #: steady time at which it should have begun
    period_ns: int  #: wall time of one period: a command that leaves later than this is missed
    skipped: int  #: older schedules that no tick will ever serve: missed
    fresh: bool  #: a frame came since the last tick


class Pacer:
    """Says when the next tick runs.

    In real time ticks lie on a fixed grid of the steady clock.  The grid's phase is taken from the
    camera: camera and policy run at the same rate, so with an arbitrary phase the newest frame can
    be a whole period old, and when both events fall together scheduling jitter flips their order,
    so that one tick sees the same frame twice and the next one skips a frame.  A grid a few
    milliseconds behind the camera has young frames and room for jitter.  It is aligned to the
    first frame (after any silence) and then only moved when 40 ticks in a row agree that the phase
    has drifted.  A tick whose frame is late waits for it, at most ``frame_wait`` of a period.

    Under simulated time the frames' stamps are the grid, so the rate follows a simulation that
    runs faster or slower than the wall.  The steady clock watches for silence all the same.

    Args:
        period_ns: of one agent step.
        now_ns: steady time at the start; until a first frame ticks run at once, without a frame.
        simulated: whether frames carry simulated time.
        frame_wait: share of a period that a tick waits for a late frame; with it the safe action
            of a silent camera comes within two periods of its last frame.
    """

    def __init__(
        self, period_ns: int, now_ns: int, *, simulated: bool = False, frame_wait: float = 0.75
    ) -> None:
        self.period_ns = period_ns
        self._simulated = simulated
        self._wait_ns = int(period_ns * frame_wait)
        self._phase_ns = min(PHASE_NS, period_ns // 10)
        self._due_ns = now_ns
        self._fresh_ns: int | None = None  # steady arrival of a frame that no tick has used
        self._last_frame_ns: int | None = None
        self._silent = True  # no frame yet, or the last tick had none
        self._leads: deque[int] = deque(maxlen=ALIGN_TICKS)
        self._due_stamp_ns: int | None = None
        self._stamp_ns = 0
        self._wall_ns = float(period_ns)  # of one simulated period, smoothed

    def on_frame(self, now_ns: int, stamp_ns: int) -> None:
        """Remember that a frame with this stamp arrived."""
        if self._simulated:
            self._on_simulated(now_ns, stamp_ns)
            return
        self._fresh_ns = self._last_frame_ns = now_ns
        if self._silent:
            self._silent = False
            self._due_ns = now_ns + self._phase_ns
            self._leads.clear()

    def _on_simulated(self, now_ns: int, stamp_ns: int) -> None:
        restarted = stamp_ns < self._stamp_ns
        if not restarted and self._last_frame_ns is not None and not self._silent:
            steps = max(1, round((stamp_ns - self._stamp_ns) / self.period_ns))
            self._wall_ns += 0.1 * ((now_ns - self._last_frame_ns) / steps - self._wall_ns)
        if self._due_stamp_ns is None or restarted or self._silent:
            self._due_stamp_ns = stamp_ns
        self._stamp_ns, self._last_frame_ns, self._silent = stamp_ns, now_ns, False
        if self._fresh_ns is None and stamp_ns >= self._due_stamp_ns - self.period_ns // 4:
            self._fresh_ns = now_ns

    def next_call_ns(self) -> int:
        """Give the steady time at which ``poll`` has to be called; earlier when a frame comes."""
        if self._simulated:
            return self._fresh_ns if self._fresh_ns is not None else self._silence_ns()
        waits = self._fresh_ns is None and not self._silent
        return self._due_ns + self._wait_ns if waits else self._due_ns

    def _silence_ns(self) -> int:
        if self._silent or self._last_frame_ns is None:
            return self._due_ns
        allowed = max(float(self.period_ns), self._wall_ns) * (1 + self._wait_ns / self.period_ns)
        return self._last_frame_ns + int(allowed)

    def poll(self, now_ns: int) -> Due | None:
        """Give the tick to run at ``now_ns``; None before its time or while its frame may come."""
        if self._simulated:
            return self._poll_simulated(now_ns)
        fresh = self._fresh_ns
        if now_ns < self._due_ns or now_ns < self.next_call_ns():
            return None
        skipped = (now_ns - self._due_ns) // self.period_ns
        scheduled = self._due_ns + skipped * self.period_ns
        self._due_ns = scheduled + self.period_ns
        if fresh is not None:
            self._align(scheduled - fresh)
        self._silent, self._fresh_ns = fresh is None, None
        return Due(scheduled, self.period_ns, skipped, fresh is not None)

    def _poll_simulated(self, now_ns: int) -> Due | None:
        wall_ns = max(int(self._wall_ns), 1)
        if self._fresh_ns is not None and self._due_stamp_ns is not None:
            ahead = self._stamp_ns - self._due_stamp_ns + self.period_ns // 4
            skipped = max(0, ahead // self.period_ns)
            self._due_stamp_ns += (skipped + 1) * self.period_ns
            due = Due(self._fresh_ns, wall_ns, skipped, fresh=True)
            self._fresh_ns = None
            return due
        if now_ns < self._silence_ns():
            return None
        self._silent, self._due_ns = True, now_ns + self.period_ns
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


class Histogram:
    """Counts durations in bins 5 % wide, 0.01 ms to 10 s, so that a long run costs no memory."""

    EDGES_MS = tuple(0.01 * 1.05**i for i in range(284))

    def __init__(self) -> None:
        self.counts = [0] * (len(self.EDGES_MS) + 1)
        self.total = 0
        self.max_ms = 0.0

    def add(self, value_ms: float) -> None:
        """Count one duration in milliseconds."""
        self.counts[bisect.bisect_left(self.EDGES_MS, value_ms)] += 1
        self.total += 1
        self.max_ms = max(self.max_ms, value_ms)

    def percentile(self, percent: float) -> float:
        """Give the upper edge in ms of the percentile's bin; 0.0 while nothing was counted."""
        rank, below = math.ceil(self.total * percent / 100.0), 0
        for edge, count in zip((*self.EDGES_MS, math.inf), self.counts, strict=True):
            below += count
            if below >= rank and self.total:
                return min(edge, self.max_ms)
        return 0.0

    def to_json(self) -> dict[str, list[float] | list[int]]:
        """Give upper edges in ms and counts of bins, from the first to the last that is filled."""
        filled = [i for i, count in enumerate(self.counts) if count]
        if not filled:
            return {"edges_ms": [], "counts": []}
        span = slice(filled[0], filled[-1] + 1)
        edges = [round(e, 5) for e in (*self.EDGES_MS, max(self.max_ms, self.EDGES_MS[-1]))[span]]
        return {"edges_ms": edges, "counts": self.counts[span]}


class TickStats:
    """Counts ticks that ran, were missed or were safe, and how long they took.

    ``ticks`` are those in which the policy acted, with the schedules that were skipped altogether;
    safe-action ticks are counted apart.  A tick is missed when its command leaves later than one
    period after its schedule, in wall time.
    """

    def __init__(self) -> None:
        self.ticks = self.missed_ticks = 0
        self.safe_ticks = self.missed_safe_ticks = 0
        self.safe_by_reason: Counter[str] = Counter()
        self.tick_ms = Histogram()  # work: from the tick's start to its command's leaving
        self.late_ms = Histogram()  # from its schedule to its command's leaving
        self.obs_age_ms = Histogram()  # from the image's stamp to the command's leaving

    def add(
        self, due: Due, begin_ns: int, left_ns: int, *, obs_age_ms: float | None, safe: str | None
    ) -> bool:
        """Count one tick and return whether it was missed.

        Args:
            due: the tick as the pacer gave it.
            begin_ns: steady time at which its work began.
            left_ns: steady time at which its command had left.
            obs_age_ms: age of the image at that moment; None where there was no image.
            safe: the reason of the safe action; None where the policy acted.
        """
        missed = left_ns - due.scheduled_ns > due.period_ns
        if safe is None:
            self.ticks += 1 + due.skipped
            self.missed_ticks += int(missed) + due.skipped
            self.tick_ms.add((left_ns - begin_ns) * 1e-6)
            self.late_ms.add(max(0.0, (left_ns - due.scheduled_ns) * 1e-6))
            if obs_age_ms is not None:
                self.obs_age_ms.add(max(0.0, obs_age_ms))
        else:
            self.safe_ticks += 1 + due.skipped
            self.missed_safe_ticks += int(missed) + due.skipped
            self.safe_by_reason[safe] += 1
        return missed

    def summary(self) -> dict[str, object]:
        """Give counts and percentiles, times in ms."""
        return {
            "ticks": self.ticks,
            "missed_ticks": self.missed_ticks,
            "safe_ticks": self.safe_ticks,
            "missed_safe_ticks": self.missed_safe_ticks,
            "safe_by_reason": dict(self.safe_by_reason),
            **{
                f"{name}_p{percent}_ms": round(histogram.percentile(percent), 4)
                for name, histogram in self._histograms().items()
                for percent in (50, 99)
            },
        }

    def to_json(self, period_s: float) -> dict[str, object]:
        """Give the summary and the histograms."""
        bins = {f"{name}_ms": h.to_json() for name, h in self._histograms().items()}
        return {"period_s": period_s, **self.summary(), "histograms": bins}

    def _histograms(self) -> dict[str, Histogram]:
        return {"tick": self.tick_ms, "late": self.late_ms, "obs_age": self.obs_age_ms}
