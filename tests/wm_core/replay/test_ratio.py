"""A learner is held to its ratio, and nobody waits for it."""

from __future__ import annotations

from wm_core.replay.ratio import ReplayRatio


def test_updates_follow_the_steps_that_were_collected():
    ratio = ReplayRatio(4.0, 100)
    done = 0
    for collected in range(0, 1001, 10):
        done += ratio.due(collected)
        ratio.did(ratio.due(collected))
    assert done == 40
    assert ratio.actual(1000) == 4.0


def test_nothing_is_due_before_the_prefill_and_all_of_it_after():
    ratio = ReplayRatio(4.0, 100, prefill=500)
    assert ratio.due(499) == 0
    assert ratio.due(500) == 20


def test_a_slow_learner_catches_up_and_a_store_that_stands_still_allows_no_more():
    ratio = ReplayRatio(1.0, 10)
    ratio.did(3)
    assert ratio.due(100) == 7
    ratio.did(7)
    assert ratio.due(100) == 0
    assert ratio.due(90) == 0


def test_a_burst_bounds_what_the_prefill_allows_and_later_steps_count_in_full():
    ratio = ReplayRatio(4.0, 100, prefill=500, burst=5)
    assert [ratio.due(n) for n in (499, 500, 525, 1000)] == [0, 5, 6, 25]
    assert ReplayRatio(4.0, 100, prefill=500, burst=0).due(500) == 0
    assert ReplayRatio(4.0, 100, prefill=500, burst=99).due(500) == 20  # no more than the ratio
