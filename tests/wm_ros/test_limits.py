"""A command moves no faster than its limits allow, and stops where it should."""

from __future__ import annotations

import numpy as np
import pytest

from wm_ros.safety.limits import Limiter

PERIOD_S = 0.05
FREE = np.inf


def drive(limiter: Limiter, wanted: list[float]) -> np.ndarray:
    """Send what is wanted (T,) through the limiter, from where it is; what was sent (T,)."""
    sent = []
    for value in wanted:
        command = limiter.limited(np.array([value]))
        limiter.remember(command, np.array([True]), np.array([False]))
        sent.append(float(command[0]))
    return np.array(sent)


def limiter(rate: float = FREE, jerk: float = FREE, at: float = 0.0) -> Limiter:
    made = Limiter([-1.0], [1.0], [rate], [jerk], PERIOD_S)
    made.start(np.array([at]))
    return made


def test_a_rate_is_units_per_second_at_the_true_period():
    np.testing.assert_allclose(drive(limiter(rate=2.0), [1.0] * 3), [0.1, 0.2, 0.3])


def test_a_range_is_held_without_any_other_limit():
    np.testing.assert_array_equal(drive(limiter(), [5.0, -5.0, 0.25]), [1.0, -1.0, 0.25])


@pytest.mark.parametrize(("rate", "jerk"), [(1, 2), (FREE, 3), (2, 50), (0.3, 0.1), (5, FREE)])
def test_whatever_is_wanted_rate_and_jerk_are_never_exceeded_and_no_aim_is_passed(rate, jerk):
    rng = np.random.default_rng(0)
    for _ in range(5):
        wanted = np.repeat(rng.uniform(-1.5, 1.5, 40), rng.integers(1, 40, 40))
        sent = drive(limiter(rate, jerk), list(wanted))
        speed = np.diff(np.r_[0.0, sent]) / PERIOD_S
        change = np.diff(np.r_[0.0, speed]) / PERIOD_S
        assert np.abs(sent).max() <= 1.0
        assert np.abs(speed).max() <= rate * (1 + 1e-6)
        assert np.abs(change).max() <= jerk * (1 + 1e-6)


def test_with_a_limit_of_jerk_the_command_arrives_and_rests():
    sent = drive(limiter(rate=1.0, jerk=2.0), [0.7] * 60)
    assert sent.max() <= 0.7 + 1e-9
    np.testing.assert_allclose(sent[-5:], 0.7, atol=1e-9)


def test_an_element_of_which_nothing_is_known_is_not_slewed_from_zero():
    made = Limiter([-1.0], [1.0], [2.0], [FREE], PERIOD_S)
    assert made.limited(np.array([0.9])) == 0.9
    made.start(np.array([0.5]))
    np.testing.assert_allclose(made.limited(np.array([0.9])), 0.6)


def test_an_element_that_was_stopped_at_once_is_at_rest():
    made = limiter(jerk=2.0)
    drive(made, [1.0] * 8)
    made.remember(np.array([0.0]), np.array([True]), np.array([True]))
    np.testing.assert_allclose(drive(made, [1.0]), [2.0 * PERIOD_S**2])
