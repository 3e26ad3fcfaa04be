"""Bounds of means and shares, and what a summary says."""

import math

import numpy as np
import pytest

from wm_core.training.returns import Evaluation, PlayedEpisode, RunsEvaluation, wilson_interval


def test_bounds_are_the_student_t_interval_of_the_mean():
    result = Evaluation((1.0, 2.0, 3.0, 4.0), (1, 1, 1, 1))
    low, high = result.bounds
    half = 3.182 * np.std([1, 2, 3, 4], ddof=1) / 2  # t for 3 degrees of freedom
    assert (low, high) == pytest.approx((2.5 - half, 2.5 + half))


def test_bounds_cover_the_true_mean_in_about_95_of_100_draws():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        low, high = Evaluation(tuple(rng.normal(5.0, 2.0, 10)), (1,) * 10).bounds
        inside += low <= 5.0 <= high
    assert 0.92 < inside / 400 < 0.98


def test_bounds_of_one_episode_are_infinite_and_null_in_json():
    result = Evaluation((3.0,), (7,))
    assert result.bounds == (-math.inf, math.inf)
    assert result.summary()["low"] is None


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_bounds_of_a_share_are_wilsons(hits, n, low, high):
    """The last row is the example of Newcombe 1998, method 3."""
    assert wilson_interval(hits, n) == pytest.approx((low, high), abs=1e-4)


def test_a_summary_holds_every_episode():
    episodes = [
        PlayedEpisode(1.0, 5, "terminated", True, True, seed=3),
        PlayedEpisode(3.0, 7, "truncated", False, True, seed=4),
        PlayedEpisode(5.0, 9, "truncated", None, None, seed=5),
    ]
    told = Evaluation.of(episodes).summary()
    assert (told["mean"], told["mean_length"], told["episodes"]) == (3.0, 7.0, 3)
    assert told["endings"] == {"terminated": 1, "truncated": 2, "cut": 0}
    assert told["seeds"] == [3, 4, 5]
    success = told["success"]
    assert (success["share"], success["share_once"], success["episodes"]) == (0.5, 1.0, 2)


def test_bounds_over_runs_are_those_of_their_means():
    """Many episodes make a run's mean exact, and say nothing about another seed's."""
    runs = [Evaluation((float(i),) * 50, (1,) * 50) for i in (1, 2, 3)]
    found = RunsEvaluation(("a", "b", "c"), tuple(runs))
    assert found.mean == 2.0
    assert found.bounds == pytest.approx((2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert [r["run"] for r in found.summary()["runs"]] == ["a", "b", "c"]
    assert found.summary()["sd"] == 1.0
