"""Scales that follow what they see: running moments against numpy, factors that seek a target."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm_core.nn.normalize import AdaptiveScale, RunningStd, RunningVariance


def test_running_moments_are_numpys_weighted_ones_without_start_up_bias():
    running, rng = RunningStd(rate=0.1), np.random.default_rng(0)
    seen = [rng.normal(3.0, 2.0, 50).astype(np.float32) for _ in range(6)]
    for n, values in enumerate(seen, start=1):
        mean, std = running.update(torch.from_numpy(values))
        # the newest counts 0.1, the one before 0.09, ...; together they count 1
        weights = 0.1 * 0.9 ** np.arange(n - 1, -1, -1)
        weights /= weights.sum()
        first = np.average([v.mean() for v in seen[:n]], weights=weights)
        second = np.average([np.square(v).mean() for v in seen[:n]], weights=weights)
        assert mean.item() == pytest.approx(first, rel=1e-4)
        assert std.item() == pytest.approx(np.sqrt(second - first**2), rel=1e-4)


def test_the_first_batch_alone_has_its_own_moments():
    mean, std = RunningStd(rate=0.01).update(torch.tensor([1.0, 3.0]))
    assert mean.item() == pytest.approx(2.0, rel=1e-5)
    assert std.item() == pytest.approx(1.0, rel=1e-4)


def test_constant_values_have_a_deviation_that_can_be_divided_by():
    _, std = RunningStd(rate=0.1).update(torch.full((5,), 7.0))
    assert 0 < std.item() < 1e-2


def test_each_element_has_its_own_variance_and_no_less_than_the_smallest():
    running, rng = RunningVariance(3, rate=0.1, low=1e-3), np.random.default_rng(0)
    seen = [rng.normal([1.0, -2.0, 5.0], [2.0, 0.1, 0.0], (50, 3)) for _ in range(4)]
    weights = 0.1 * 0.9 ** np.arange(3, -1, -1)
    weights /= weights.sum()
    for values in seen:
        variance = running(torch.from_numpy(values))
    first = np.average([v.mean(0) for v in seen], axis=0, weights=weights)
    second = np.average([np.square(v).mean(0) for v in seen], axis=0, weights=weights)
    expected = np.maximum(second - first**2, 1e-3)
    np.testing.assert_allclose(variance.numpy(), expected, rtol=1e-3)
    assert variance[2] == pytest.approx(1e-3)


def adaptive(**changes):
    given = {"target": 2.0, "low": 0.5, "high": 4.0, "raise_when_low": True, "initial": 1.0}
    return AdaptiveScale(**given | changes)


@pytest.mark.parametrize(
    ("value", "for_bonus", "for_loss"),
    [(1.79, 1.1, 1 / 1.1), (1.81, 1.0, 1.0), (2.19, 1.0, 1.0), (2.21, 1 / 1.1, 1.1)],
)
def test_a_factor_moves_by_a_tenth_outside_a_dead_band_of_a_tenth(value, for_bonus, for_loss):
    """A bonus grows where its value is low, a loss where its value is high."""
    for raise_when_low, factor in ((True, for_bonus), (False, for_loss)):
        scale = adaptive(raise_when_low=raise_when_low)
        scale.update(torch.tensor(value))
        assert scale.scale.item() == pytest.approx(factor)


def test_a_value_changes_the_next_factor_not_the_current_one():
    scale = adaptive()
    assert scale.update(torch.tensor(0.0)).item() == 1.0
    assert scale.update(torch.tensor(0.0)).item() == pytest.approx(1.1)


def test_a_factor_stays_within_its_bounds():
    scale = adaptive()
    for value, bound in ((0.0, 4.0), (9.0, 0.5)):
        for _ in range(40):
            scale.update(torch.tensor(value))
        assert scale.scale.item() == pytest.approx(bound)


def test_factors_and_moments_are_part_of_the_saved_state():
    scale, running = adaptive(), RunningStd(rate=0.1)
    scale.update(torch.tensor(0.0))
    running.update(torch.tensor([1.0, 2.0]))
    other, again = adaptive(), RunningStd(rate=0.1)
    other.load_state_dict(scale.state_dict())
    again.load_state_dict(running.state_dict())
    assert other.scale == scale.scale
    one, two = (r.update(torch.tensor([5.0, 0.0])) for r in (running, again))
    assert one == two
