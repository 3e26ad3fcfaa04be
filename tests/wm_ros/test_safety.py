"""Whatever is missing, old, frozen or not a number stops the robot."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.spec import ActionSpec
from wm_ros.safety.guard import Guard, limited
from wm_ros.settings import SafetySettings

FINE = {"fresh": True, "receive_age_s": 0.01, "stamp_age_s": 0.02}
SPEC = ActionSpec(low=(-1.0,), high=(1.0,), max_change=0.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"fresh": False, "receive_age_s": 0.09}, "no_frame"),
        ({"fresh": False, "receive_age_s": 0.03}, None),
        ({"stamp_age_s": 0.3}, "stale_stamp"),
        ({"stamp_age_s": -0.3}, "stamp_in_future"),
    ],
)
def test_a_frame_that_is_missing_or_old_by_arrival_or_stamp_is_not_acted_upon(change, reason):
    guard = Guard(SafetySettings(max_obs_age_s=0.2, max_gap_s=0.05))
    assert guard.check_frame(**{**FINE, **change}) == reason


def test_a_camera_that_repeats_its_picture_is_frozen_until_it_changes():
    guard = Guard(SafetySettings(frozen_frames=3))
    still = {"image": np.ones((4, 4, 3), np.uint8)}
    assert [guard.check_obs(still) for _ in range(4)] == [None, None, *["frozen_frame"] * 2]
    assert guard.check_obs({"image": np.zeros((4, 4, 3), np.uint8)}) is None


def test_one_camera_of_two_that_repeats_its_picture_is_frozen_until_it_is_rearmed():
    guard = Guard(SafetySettings(frozen_frames=3))
    still = np.ones((4, 4, 3), np.uint8)
    ticks = [{"image": np.full_like(still, t), "wrist": still} for t in range(4)]
    assert [guard.check_obs(obs) for obs in ticks] == [None, None, *["frozen_frame"] * 2]
    guard.rearm()
    assert guard.check_obs(ticks[0]) is None


def test_a_nan_among_the_measurements_is_found():
    guard = Guard(SafetySettings())
    assert guard.check_obs({"proprio": np.array([0.0, np.nan], np.float32)}) == "nan_obs"


def test_a_latched_guard_stays_safe_until_it_is_rearmed():
    guard = Guard(SafetySettings(latch_safe=True, max_obs_age_s=0.2))
    assert guard.check_frame(**{**FINE, "stamp_age_s": 9.0}) == "stale_stamp"
    assert guard.check_frame(**FINE) is None
    assert (guard.check_latch(), guard.latched) == ("latched", "stale_stamp")
    guard.activate()
    assert (guard.check_latch(), guard.latched) == ("latched", "stale_stamp")
    guard.rearm()
    assert guard.check_latch() is None


def test_an_action_is_limited_in_range_and_slew_and_refused_when_it_is_no_number():
    sent = np.array([0.8], np.float32)
    assert limited(np.array([5.0], np.float32), sent, SPEC) == np.float32(1.0)
    assert limited(np.array([-1.0], np.float32), sent, SPEC) == np.float32(0.3)
    assert limited(np.array([np.nan], np.float32), sent, SPEC) is None
    assert limited(np.zeros(2, np.float32), sent, SPEC) is None


def test_a_choice_is_one_hot_and_refused_when_it_is_no_number():
    choices, sent = ActionSpec.choices(3), np.array([1, 0, 0], np.float32)
    scores = np.array([0.2, 0.3, 0.1], np.float32)
    assert limited(scores, sent, choices).tolist() == [0, 1, 0]
    assert limited(scores * np.float32(np.nan), sent, choices) is None
    assert limited(np.ones(1, np.float32), sent, choices) is None


def test_surprise_counts_in_a_row_against_the_parameter_or_else_the_card():
    for settings, card in ((SafetySettings(surprise_limit=2.0), 0.0), (SafetySettings(), 2.0)):
        guard = Guard(settings)
        guard.begin(period_s=0.05, card_max_obs_age_s=0.0, card_surprise_limit=card)
        for nats in (3.0, 3.0, 3.0, 3.0, 1.0, 3.0, 3.0, 3.0, float("nan")):
            assert guard.check_surprise(nats) is None
            assert not guard.alarm
        assert guard.check_surprise(3.0) is None
        assert guard.alarm == "surprised"
        guard.check_surprise(1.0)
        assert not guard.alarm
    anything = Guard(SafetySettings(surprise_limit=-1.0))
    anything.begin(period_s=0.05, card_max_obs_age_s=0.0, card_surprise_limit=2.0)
    assert [anything.check_surprise(9.0) for _ in range(9)] == [None] * 9
    assert not anything.alarm


def test_surprise_that_stops_the_robot_latches_whatever_else_does():
    guard = Guard(SafetySettings(surprise_limit=2.0, surprise_ticks=1, surprise_action="stop"))
    assert guard.check_surprise(3.0) == guard.latched == "surprised"


def test_a_robot_that_has_not_begun_latches_nothing_by_waiting():
    guard = Guard(SafetySettings(latch_safe=True))
    for reason in ("no_policy", "no_frame", "no_joint_states"):
        assert guard.trip(reason) == reason
    assert guard.latched is None
    guard.acted()
    guard.trip("no_frame")
    assert guard.latched == "no_frame"
