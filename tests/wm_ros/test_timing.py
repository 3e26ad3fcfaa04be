"""Ticks keep a grid, follow the camera's phase, and are counted honestly."""

from __future__ import annotations

import numpy as np
import pytest

from wm_ros.timing.pacer import PHASE_NS, Due, Pace, Pacer, SimulatedPacer, TimerPacer
from wm_ros.timing.tick_stats import Histogram, TickStats

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


def stops_of(pacer: Pacer, frames: list[tuple[int, int]], end_ns: int) -> list[bool]:
    """Of each tick, once three seconds of frames came, whether it would stop the robot."""
    stops, last, now, frames, begin = (
        [],
        -(10**18),
        0,
        list(frames),
        frames[0][0] + 3 * 20 * PERIOD,
    )
    while True:
        wake = pacer.next_call_ns()
        now = max(now, min(wake, frames[0][0] if frames else wake))
        if now >= end_ns:
            return stops
        while frames and frames[0][0] <= now:
            last = frames[0][0]
            pacer.on_frame(*frames.pop(0))
        due = pacer.poll(now)
        if due is not None and now >= begin:
            silent = not due.fresh and now - last >= pacer.gap_ns
            stops.append(silent or pacer.too_slow)


@pytest.mark.parametrize("jitter_ms", [0, 5, 15])
@pytest.mark.parametrize("hz", [5, 7, 10, 15, 19, 19.7, 20, 21, 30, 60])
def test_a_policy_of_20_hz_never_flips_whatever_its_camera_gives(hz, jitter_ms):
    rng = np.random.default_rng(0)
    arrivals = sorted(
        int(k * 1e9 / hz + rng.uniform(0, jitter_ms) * MS) for k in range(int(8 * hz))
    )
    stops = stops_of(Pacer(Pace(PERIOD), 0), [(a, a) for a in arrivals], arrivals[-1])
    assert stops
    assert not any(stops)


@pytest.mark.parametrize(("hz", "follow"), [(2, True), (4, True), (15, False), (10, False)])
def test_a_camera_that_is_not_followed_stops_the_robot_for_good_and_does_not_flip(hz, follow):
    arrivals = [int(k * 1e9 / hz) for k in range(1, 12 * hz)]
    pacer = Pacer(Pace(PERIOD, follow=follow), 0)
    stops = stops_of(pacer, [(a, a) for a in arrivals], arrivals[-1])
    assert stops
    assert all(stops)


@pytest.mark.parametrize("hz", [5, 10, 15, 20])
def test_a_camera_that_dies_stops_the_robot_within_two_of_its_periods_and_half_a_second(hz):
    arrivals = [int(k * 1e9 / hz) for k in range(1, 8 * hz)]
    pacer, stopped = Pacer(Pace(PERIOD), 0), []
    for now, due in run_until(pacer, [(a, a) for a in arrivals], arrivals[-1] + 10**9):
        age = now - arrivals[-1]
        if age > 0 and not due.fresh and age >= pacer.gap_ns:
            stopped.append(age)
    assert stopped[0] <= min(2e9 / hz, max(5 * PERIOD, 2 * PERIOD))


@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("speed", [0.05, 0.1, 0.3, 0.5, 0.57, 1.0, 5.0])
def test_a_simulation_of_any_speed_never_flips_from_its_first_frame_on(speed, jitter):
    rng = np.random.default_rng(1)
    gaps = PERIOD / speed * (1 + rng.uniform(-jitter, jitter, 60))
    frames = [(int(at), (k + 1) * PERIOD) for k, at in enumerate(np.cumsum(gaps))]
    pacer = SimulatedPacer(Pace(PERIOD), 0)
    ticks = [due for now, due in run_until(pacer, frames, frames[-1][0]) if now >= frames[0][0]]
    assert len(ticks) >= 59
    silent = sum(not due.fresh for due in ticks)
    assert silent <= (2 if speed < 0.1 else 0)  # until the speed is known


def test_a_simulation_that_slows_down_to_a_tenth_stops_a_few_times_and_no_more():
    gaps = [PERIOD] * 40 + [10 * PERIOD] * 40
    frames = [(int(at), (k + 1) * PERIOD) for k, at in enumerate(np.cumsum(gaps))]
    ticks = run_until(SimulatedPacer(Pace(PERIOD), 0), frames, frames[-1][0])
    flips = np.diff([due.fresh for now, due in ticks if now >= frames[0][0]])
    assert flips.sum() <= 6


def test_a_jump_of_simulated_time_is_no_missed_tick():
    pacer, skipped = SimulatedPacer(Pace(PERIOD), 0), 0
    for k in range(1, 100):
        stamp = k * PERIOD + (97 * 10**9 if k > 50 else 0)
        pacer.on_frame(k * PERIOD, stamp)
        due = pacer.poll(k * PERIOD)
        skipped += due.skipped
        assert due.fresh
    assert skipped == 0


def test_without_a_camera_a_timer_sets_the_pace():
    pacer = TimerPacer(Pace(PERIOD), 0, simulated=False)
    ticks = run_until(pacer, [], 20 * PERIOD)
    assert [now for now, _ in ticks] == [k * PERIOD for k in range(20)]
    assert all(due.fresh for _, due in ticks)


@pytest.mark.parametrize("speed", [0.2, 1.0, 10.0])
def test_a_timer_follows_simulated_time_and_notices_that_it_stands_still(speed):
    pacer, now, due_at, silent = TimerPacer(Pace(PERIOD), 0, simulated=True), 0, [], 0
    stands = int(40 * PERIOD / speed)
    while now < stands + 3 * 10**9:
        now = max(now + 1, pacer.next_call_ns())
        ros = 10**9 + int(min(now, stands) * speed) // MS * MS
        due = pacer.poll(now, ros)
        if due is not None and due.fresh:
            due_at.append(ros)
        silent += due is not None and not due.fresh
    assert len(due_at) == pytest.approx(40, abs=3)
    assert np.diff(due_at[2:]).mean() == pytest.approx(PERIOD, rel=0.05)
    assert silent > 5


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
