"""Rates are those of the last messages, and what is over is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from wm_ros.timing.rhythm import NS, Rhythm, Window

MS = 1_000_000
PERIOD = 50 * MS


def heard(gaps, stamps=None) -> tuple[Rhythm, int]:
    """A rhythm that heard messages so far apart (ns), and the time of the last one."""
    rhythm, now, stamp = Rhythm(), NS, 10 * NS
    for gap, step in zip(gaps, stamps or gaps, strict=True):
        now, stamp = now + gap, stamp + step
        rhythm.add(now, stamp)
    return rhythm, now


@pytest.mark.parametrize("hz", [2, 5, 15, 19, 20, 30, 60])
def test_the_rate_of_a_jittery_camera_is_known_to_a_few_percent(hz):
    rng = np.random.default_rng(hz)
    arrivals = [k * NS // hz + int(rng.uniform(0, 0.2 / hz) * NS) for k in range(1, 40)]
    rhythm, now = heard([int(gap) for gap in np.diff(arrivals)])
    assert rhythm.rate_hz(now) == pytest.approx(hz, rel=0.04)
    assert rhythm.counts(now)["lost"] == 0


def test_a_rate_that_changes_is_known_after_a_few_messages():
    rhythm, now = heard([PERIOD] * 40 + [2 * PERIOD] * 4)
    assert rhythm.rate_hz(now) == pytest.approx(10, rel=0.1)


def test_a_driver_that_was_away_has_paused_and_lost_nothing():
    rhythm, now = heard([PERIOD] * 30 + [10 * NS] + [PERIOD] * 30)
    assert rhythm.counts(now) == {"came": 61, "pauses": 1}
    assert rhythm.lost == 0
    assert rhythm.rate_hz(now) == pytest.approx(20, rel=0.01)


@pytest.mark.parametrize("ahead", [3600 * NS, 10 * NS, -5 * NS])
def test_one_stamp_of_another_clock_is_a_jump_and_no_loss(ahead):
    steps = [PERIOD] * 30 + [PERIOD + ahead, PERIOD - ahead] + [PERIOD] * 10
    rhythm, now = heard([PERIOD] * len(steps), steps)
    assert rhythm.lost == 0
    assert 1 <= rhythm.counts(now)["jumps"] <= 2


def test_messages_lost_on_the_way_are_counted_and_forgotten_in_half_a_minute():
    gaps = ([PERIOD] * 4 + [2 * PERIOD]) * 12
    rhythm, now = heard(gaps)
    assert rhythm.counts(now)["lost"] == rhythm.lost
    assert 8 <= rhythm.lost <= 12
    assert rhythm.counts(now + 40 * NS)["lost"] == 0


def test_a_silent_topic_has_no_rate():
    rhythm, now = heard([PERIOD] * 30)
    assert rhythm.rate_hz(now + 5 * NS) == 0.0


def test_a_window_counts_the_last_seconds_only():
    window = Window(10)
    for second in range(20):
        window.add(second * NS, "tick")
    assert window.counts(19 * NS)["tick"] == 10
