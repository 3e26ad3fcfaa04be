"""One sentence says how the robot is: the worst thing first."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from wm_ros.diagnosis import health  # noqa: E402

FINE = {
    "refusal": "",
    "policy_version": 3,
    "latched": None,
    "frames": 100,
    "frame_age_s": 0.02,
    "frames_missed": 0,
    "stream": {"spool_dropped_disk_full": 0},
}


@pytest.mark.parametrize(
    ("change", "level", "said"),
    [
        ({}, b"\x00", "policy version 3 runs"),
        ({"stream": {"spool_dropped_disk_full": 7}}, b"\x01", "not stored.*disk_full 7"),
        ({"frames_missed": 20}, b"\x01", "frames go missing"),
        ({"policy_version": -1}, b"\x01", "safe actions only"),
        ({"frame_age_s": 5.0}, b"\x02", "the camera is silent"),
        ({"latched": "nan_obs"}, b"\x02", "latched by nan_obs"),
        ({"refusal": "expected 32x32", "frame_age_s": 5.0}, b"\x02", "refused: expected 32x32"),
    ],
)
def test_the_worst_problem_of_the_robot_is_reported_first(change, level, said):
    got, sentence = health(FINE | change)
    assert (got, bool(re.search(said, sentence))) == (level, True)
