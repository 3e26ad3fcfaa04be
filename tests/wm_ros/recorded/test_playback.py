"""Each step of a bag holds what the robot could know, and what was sent in answer."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros.recorded.bags import BEGIN_NS, MS, ROBOT, drive
from wm_core.contract.errors import RecordingError
from wm_ros.recorded.reader import open_source


def numbers(steps):
    """The number of the frame that each step shows."""
    return [int(step.obs["image"][0, 0, 0]) for step in steps]


def commands(steps):
    """The command of each step in hundredths of a metre per second."""
    return [round(float(step.action[0]) * 100) for step in steps]


def test_each_frame_has_the_measurement_beside_it_and_the_command_that_answered_it(play):
    got = play(drive(20))
    assert len(got.episodes) == 1
    assert numbers(got.steps) == [*range(20)]
    assert commands(got.steps) == [*range(20)]
    assert [round(float(s.obs["odometry"][0]) * 100) for s in got.steps] == [*range(20)]
    assert [s.stamp_ns for s in got.steps] == [BEGIN_NS + i * 100 * MS for i in range(20)]
    assert got.left_out == {}
    assert "every reward is 0" in " ".join(got.notes)


def test_a_gap_ends_an_episode_and_nothing_is_made_up_for_it(play):
    messages = [m for m in drive(20) if not 800 <= m[1] < 1200]
    got = play(messages)
    assert [numbers(e) for e in got.episodes] == [[*range(8)], [*range(12, 20)]]
    assert [(e[0].is_first, e[-1].is_last, e[-1].is_terminal) for e in got.episodes] == [
        (True, True, False)
    ] * 2
    assert "gap 1" in " ".join(got.notes)


def test_a_frame_without_a_measurement_near_it_is_left_out_and_counted(play):
    messages = [m for m in drive(20) if m[0] != "/odom" or not 800 <= m[1] < 1000]
    got = play(messages)
    assert [numbers(e) for e in got.episodes] == [[*range(8)], [*range(10, 20)]]
    assert got.left_out == {"no_odometry": 2}


def test_a_command_counts_for_half_a_second_and_no_longer(play):
    messages = [m for m in drive(20) if m[0] != "/cmd_vel" or m[1] < 500]
    got = play(messages)
    assert numbers(got.steps) == [*range(10)]  # the last command was written at 425 ms
    assert commands(got.steps) == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4]
    assert got.left_out == {"no_action": 10}
    longer = play(messages, hold_s=5.0)
    assert (numbers(longer.steps), longer.left_out) == ([*range(20)], {})


def test_a_command_beyond_the_range_is_taken_as_its_end_and_counted(play):
    got = play(
        [*drive(60)],
        robot=ROBOT.replace("low: [-1.0", "low: [-0.1").replace("high: [1.0", "high: [0.1"),
    )
    assert [s.action[0] for s in got.steps[10:]] == [1.0] * 50
    assert "49 commands of linear.x lay beyond" in " ".join(got.notes)


def test_frames_between_two_decisions_are_counted(play):
    got = play(drive(60, period_ms=50, latency_ms=5))
    assert numbers(got.steps) == [*range(0, 60, 2)]
    assert got.left_out == {"between_two_decisions": 30}
    assert commands(got.steps) == [*range(0, 60, 2)]


def test_frames_that_do_not_divide_into_decisions_keep_the_rate(play):
    got = play(drive(60, period_ms=40, latency_ms=5))  # 25 Hz for 10 decisions a second
    stamps = np.diff([step.stamp_ns for step in got.steps]) / MS
    assert len(got.episodes) == 1
    assert {*stamps} <= {80.0, 120.0}
    assert abs(stamps.mean() - 100) < 3


def test_a_camera_that_is_too_slow_is_refused_with_the_rate_to_write(play):
    with pytest.raises(RecordingError, match=r"5 Hz.*10 decisions.*write rate_hz: 5"):
        play(drive(40, period_ms=200))


def test_the_same_bag_gives_the_same_fingerprint_and_another_mapping_another(play, tmp_path):
    got = play(drive(5))
    bag = got.source._path
    options = got.source._options
    assert open_source(bag, options).fingerprint == got.source.fingerprint
    assert open_source(bag, options.model_copy(update={"hold_s": 1.0})).fingerprint != (
        got.source.fingerprint
    )
