"""Counts ticks and measures how long they took and how late they were; no ROS."""

from __future__ import annotations

import bisect
import math
from collections import Counter, deque

from wm_ros.timing.pacer import Due
from wm_ros.timing.rhythm import NS, WINDOW_S, Window

RECENT_TICKS = 500  #: from which percentiles of the present are taken
OVERRUN_SHARE = 0.1  #: of recent ticks that work longer than a period: the policy is too slow


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


class Recent:
    """Keeps the latest durations in milliseconds, at most ``RECENT_TICKS`` and ``WINDOW_S``."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, float]] = deque(maxlen=RECENT_TICKS)

    def add(self, now_ns: int, value_ms: float) -> None:
        """Keep one duration of the steady time ``now_ns``."""
        self._kept.append((now_ns, value_ms))

    def values(self, now_ns: int) -> list[float]:
        """Give those that are recent, sorted."""
        return sorted(ms for at, ms in self._kept if now_ns - at <= WINDOW_S * NS)

    def percentiles(self, now_ns: int, *percents: int) -> list[float]:
        """Give percentiles in ms; 0.0 while nothing was kept."""
        values = self.values(now_ns)
        if not values:
            return [0.0 for _ in percents]
        return [values[min(len(values) - 1, len(values) * p // 100)] for p in percents]


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
        self.work, self.latency = Recent(), Recent()  # the same two of late
        self._window = Window()
        self._newest_ns = 0

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
        self._newest_ns = left_ns
        self._window.add(left_ns, "acted" if safe is None else f"safe {safe}", 1 + due.skipped)
        self._window.add(left_ns, "missed", int(missed) + due.skipped)
        if safe is None:
            self.ticks += 1 + due.skipped
            self.missed_ticks += int(missed) + due.skipped
            if due.fresh:
                self.tick_ms.add((left_ns - begin_ns) * 1e-6)
                self.work.add(left_ns, (left_ns - begin_ns) * 1e-6)
            self.late_ms.add(max(0.0, (left_ns - due.scheduled_ns) * 1e-6))
            if obs_age_ms is not None:
                self.obs_age_ms.add(max(0.0, obs_age_ms))
                self.latency.add(left_ns, max(0.0, obs_age_ms))
        else:
            self.safe_ticks += 1 + due.skipped
            self.missed_safe_ticks += int(missed) + due.skipped
            self.safe_by_reason[safe] += 1
        return missed

    @property
    def busy_ms(self) -> float:
        """Give the usual work of a tick of late, in ms."""
        return self.work.percentiles(self._newest_ns, 50)[0]

    def lately(self, now_ns: int, period_ns: int) -> dict[str, object]:
        """Judge the last seconds: how long ticks work, how old commands are, what was late.

        Args:
            now_ns: steady time.
            period_ns: of one agent step: more work than that is an overrun.
        """
        counts, work = self._window.counts(now_ns), self.work.values(now_ns)
        over = sum(ms * 1e6 > period_ns for ms in work)
        (work_50, work_99), (old_50, old_99) = (
            recent.percentiles(now_ns, 50, 99) for recent in (self.work, self.latency)
        )
        return {
            "work_p50_ms": round(work_50, 3),
            "work_p99_ms": round(work_99, 3),
            "latency_p50_ms": round(old_50, 3),
            "latency_p99_ms": round(old_99, 3),
            "overrun": len(work) >= 5 and over > OVERRUN_SHARE * len(work),
            "missed_lately": counts["missed"],
            "acted_lately": counts["acted"],
            "safe_lately": {
                key.removeprefix("safe "): n for key, n in counts.items() if key[:5] == "safe "
            },
        }

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
