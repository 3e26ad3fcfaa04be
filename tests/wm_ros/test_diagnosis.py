"""One sentence says how the robot is: the worst thing first, and nothing that is over."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from wm_ros.reporting.diagnosis import (  # noqa: E402
    _silence,
    policy_status,
    stream_status,
    to_message,
)
from wm_ros.safety.reasons import ERROR, OK, WARN  # noqa: E402
from wm_ros.sensors.camera import Camera, to_image  # noqa: E402

FINE = {
    "standing": "acts",
    "standing_level": OK,
    "standing_text": "",
    "policy_version": 3,
    "period_s": 0.05,
    "card_period_s": 0.05,
    "pace": "camera",
    "policy_hz": 20.0,
    "camera_hz": 20.0,
    "camera_slower": False,
    "overrun": False,
    "work_p50_ms": 2.0,
    "work_p99_ms": 4.0,
    "frames_lately": 600,
    "frames_missed_lately": 0,
    "frame_bytes": 12288,
    "stamp_jumps_lately": 0,
    "steps_recorded": 7,
    "chunks_acked": 0,
    "alarm": "",
    "stream": {"spool_dropped_disk_full": 0},
}
STOPPED = {"standing": "no_frame", "standing_level": ERROR, "standing_text": "no_frame: silent"}
BUSY = {"overrun": True, "work_p50_ms": 130.0, "work_p99_ms": 140.0, "period_s": 0.1}


@pytest.mark.parametrize(
    ("change", "level", "said"),
    [
        ({}, OK, r"^policy version 3 acts$"),
        (STOPPED, ERROR, "no_frame: silent"),
        (STOPPED | {"frames_missed_lately": 600}, ERROR, "^no_frame: silent$"),
        ({"period_s": 0.1}, OK, r"period_s 0.1 s, its card says 0.05 s"),
        ({"camera_slower": True, "camera_hz": 15.0}, WARN, "camera 15 Hz, policy 20 Hz"),
        ({"camera_slower": True, "camera_hz": 15.0, "pace": "imu"}, WARN, "; imu 15 Hz, policy"),
        ({"frames_missed_lately": 600, "pace": "imu"}, OK, "acts$"),
        (BUSY, WARN, "overrun: a tick takes 130 ms .* period is 100 ms"),
        (BUSY | {"frames_missed_lately": 400, "camera_slower": True}, WARN, "^((?!lost).)*$"),
        ({"frames_missed_lately": 20}, OK, "acts$"),
        ({"frames_missed_lately": 60}, WARN, "60 frames of 660 got lost"),
        (
            {"frames_missed_lately": 60, "frame_bytes": 2_764_800},
            WARN,
            "2.8 MB.*Fast DDS profile.*CompressedImage",
        ),
        ({"stamp_jumps_lately": 1}, WARN, "stamps jumped 1 times"),
    ],
)
def test_the_worst_problem_of_the_robot_is_reported_first(change, level, said):
    got = policy_status(FINE | change)
    assert (got.level, bool(re.search(said, got.message))) == (level, True), got.message


def test_steps_that_are_not_stored_are_said_by_reason():
    got = stream_status(FINE | {"stream": {"spool_dropped_disk_full": 7}})
    assert (got.level, "disk_full 7" in got.message) == (WARN, True)
    assert stream_status(FINE).level == OK


@pytest.mark.parametrize(
    ("counters", "level", "said"),
    [
        ({"uploader_last_error": ""}, OK, "delivered$"),
        (
            {"uploader_last_error": "502, not an answer", "uploader_pending_chunks": 4},
            WARN,
            "4 wait: 502",
        ),
        ({"uploader_stuck_chunks": 2}, WARN, "2 cannot be sent, see the log"),
        ({"uploader_stuck_chunks": 2, "uploader_last_error": "413"}, WARN, "be sent: 413"),
    ],
)
def test_experience_that_does_not_leave_the_robot_is_said(counters, level, said):
    got = stream_status(FINE | {"stream": counters})
    assert (got.level, bool(re.search(said, got.message))) == (level, True), got.message


def test_two_robots_are_told_apart_in_one_graph():
    from builtin_interfaces.msg import Time

    status = policy_status(FINE)
    first, second = (
        to_message([status], node=f"/r{i}/policy", hardware=f"arm /r{i}", stamp=Time()).status[0]
        for i in (1, 2)
    )
    assert first.name == "/r1/policy: policy"
    assert first.hardware_id == "arm /r1"
    assert {first.name, first.hardware_id}.isdisjoint({second.name, second.hardware_id})


def test_a_silence_that_is_over_though_the_robot_is_latched_has_no_age():
    camera = Camera("image")
    camera.on_message(to_image(np.zeros((8, 8, 3), np.uint8), 1, ""), time.monotonic_ns())
    assert _silence(camera, camera.arrived_ns + 2 * 10**9, over=False).endswith("came 2.0 s ago")
    assert _silence(camera, camera.arrived_ns, over=True) == ""
