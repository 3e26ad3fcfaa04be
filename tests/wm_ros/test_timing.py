"""Ticks keep a grid, follow the camera's phase, and are counted honestly."""

from __future__ import annotations

import numpy as np
import pytest

from wm_ros.tick_stats import Histogram, TickStats
from wm_ros.timing import PHASE_NS, Due, Pace, Pacer, SimulatedPacer

MS = 1_000_000
PERIOD = 50 * MS


def run_until(pacer: Pacer, frames: list[tuple[int, int]], end_ns: int) -> list[tuple[int, Due]]:
    """Ticks of a node that is called exactly when it asks, given (arrival, stamp) of frames."""
    ticks, now, frames = [], 0, list(frames)
    while True:
        wake = pacer.next_call_ns()
        now = max(now, min(wake, frames[0][0] if frames else wake))
        if now >= end_ns:
            return ticks
        while frames and frames[0][0] <= now:
            pacer.on_frame(*frames.pop(0))
        due = pacer.poll(now)
        if due is not None:
            ticks.append((now, due))


def test_each_frame_gets_one_tick_a_few_ms_behind_it_despite_jitter():
    rng = np.random.default_rng(0)
    arrivals = [k * PERIOD + int(rng.uniform(0, 20) * MS) for k in range(1, 200)]
    pacer = Pacer(Pace(PERIOD), 0)
    ticks = [t for t in run_until(pacer, [(a, a) for a in arrivals], 199 * PERIOD) if t[1].fresh]
    assert len(ticks) >= len(arrivals) - 1
    assert all(due.skipped == 0 for _, due in ticks)
    for arrival, (now, _) in zip(arrivals, ticks, strict=False):
        assert 0 <= now - arrival <= 20 * MS + PHASE_NS


def test_a_silent_camera_gives_a_tick_without_a_frame_within_two_periods():
    frames = [(k * PERIOD, k * PERIOD) for k in range(1, 20)]
    ticks = run_until(Pacer(Pace(PERIOD), 0), frames, 40 * PERIOD)
    silent = [now for now, due in ticks if not due.fresh and now > frames[-1][0]]
    assert PERIOD < silent[0] - frames[-1][0] < 2 * PERIOD
    assert np.allclose(np.diff(silent[1:]), PERIOD)  # and goes on at the full rate


def test_a_drifting_camera_is_followed_so_that_frames_stay_young():
    frames = [(int(k * PERIOD * 0.999), k) for k in range(1, 2000)]
    ticks = run_until(Pacer(Pace(PERIOD), 0), frames, 1999 * int(PERIOD * 0.999))
    fresh = [now for now, due in ticks if due.fresh]
    ages = [now - max(a for a, _ in frames if a <= now) for now in fresh[-300:]]
    assert max(ages) < 20 * MS


def test_a_stall_runs_the_newest_schedule_and_counts_the_older_as_skipped():
    pacer = Pacer(Pace(PERIOD), 0)
    pacer.on_frame(0, 0)
    assert pacer.poll(PHASE_NS) == Due(PHASE_NS, PERIOD, 0, fresh=True)
    pacer.on_frame(3 * PERIOD, 0)
    due = pacer.poll(3 * PERIOD + 10 * MS)
    assert due == Due(3 * PERIOD + PHASE_NS, PERIOD, 2, fresh=True)


def test_under_simulated_time_every_frame_has_its_tick_at_any_speed():
    wall = PERIOD // 20
    frames = [(k * wall, k * PERIOD) for k in range(1, 100)]
    ticks = run_until(SimulatedPacer(Pace(PERIOD), 0), frames, 100 * wall)
    fresh = [(now, due) for now, due in ticks if due.fresh]
    assert [now for now, _ in fresh] == [a for a, _ in frames]
    assert all(due.skipped == 0 for _, due in fresh)
    assert fresh[-1][1].period_ns < 2 * wall  # a miss is measured in wall time


def test_simulated_time_that_stops_still_gives_safe_ticks():
    frames = [(k * PERIOD, k * PERIOD) for k in range(1, 20)]
    ticks = run_until(SimulatedPacer(Pace(PERIOD), 0), frames, 40 * PERIOD)
    silent = [now for now, due in ticks if not due.fresh and now > frames[-1][0]]
    assert PERIOD < silent[0] - frames[-1][0] < 2 * PERIOD
    assert len(silent) > 15


def test_simulated_time_that_jumps_back_begins_a_new_grid():
    pacer = SimulatedPacer(Pace(PERIOD), 0)
    for now, stamp in ((PERIOD, 100 * PERIOD), (2 * PERIOD, PERIOD), (3 * PERIOD, 2 * PERIOD)):
        pacer.on_frame(now, stamp)
        due = pacer.poll(now)
        assert due is not None
        assert due.fresh


def test_a_tick_is_missed_when_its_command_leaves_a_period_after_its_schedule():
    stats, due = TickStats(), Due(0, PERIOD, 0, fresh=True)
    assert not stats.add(due, 40 * MS, 49 * MS, obs_age_ms=55.0, safe=None)
    assert stats.add(due, 40 * MS, 51 * MS, obs_age_ms=57.0, safe=None)
    stats.add(Due(0, PERIOD, 3, fresh=True), 0, MS, obs_age_ms=1.0, safe=None)
    stats.add(due, 0, MS, obs_age_ms=None, safe="no_frame")
    got = stats.summary()
    assert (got["ticks"], got["missed_ticks"], got["safe_ticks"]) == (6, 4, 1)
    assert got["safe_by_reason"] == {"no_frame": 1}


@pytest.mark.parametrize("percent", [50, 99])
def test_histogram_percentile_is_within_a_bin_of_the_exact_one(percent):
    values = np.random.default_rng(1).gamma(2.0, 3.0, 5000)
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    exact = np.percentile(values, percent)
    assert exact * 0.95 <= histogram.percentile(percent) <= exact * 1.06
    bins = histogram.to_json()
    assert sum(bins["counts"]) == 5000
    assert len(bins["edges_ms"]) == len(bins["counts"])
