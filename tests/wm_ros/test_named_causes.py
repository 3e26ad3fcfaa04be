"""Of several sensors diagnostics name the one that is at fault, and none that is well again."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros.played_sensors import (
    TWIST,
    Robot,
    answered,
    camera,
    make,
    of_file,
    packed,
    start,
    stopped,
)

pytestmark = pytest.mark.ros

TWO_CAMERAS = (
    """
robot: two_cameras
rate_hz: 25
tolerance_s: 1.0
observations:
  eye: {type: sensor_msgs/Image, topic: eye, height: 32, width: 32}
  wrist: {type: sensor_msgs/CompressedImage, topic: wrist, height: 32, width: 32}
  body: {type: sensor_msgs/JointState, topic: [arm, hand], joints: [pan, grip]}
"""
    + TWIST
)
JOINTS = "sensor_msgs/JointState"


def joints(**positions: float):
    return make(JOINTS, name=[*positions], position=[*positions.values()])


def noise(stamp_ns: int):
    pixels = np.random.default_rng(stamp_ns % 2**32).integers(0, 256, (32, 32, 3), np.uint8)
    return packed("JPEG", pixels)


def test_the_sensor_at_fault_is_named_and_no_longer_once_it_is_mended(
    processes, watcher, policy_at, tmp_path
):
    from diagnostic_msgs.msg import DiagnosticArray
    from geometry_msgs.msg import TwistStamped

    spec, path = of_file(tmp_path, TWO_CAMERAS)
    commands = watcher.listen(TwistStamped, "cmd_vel")
    reports = watcher.listen(DiagnosticArray, "/diagnostics")
    start(processes, policy_at, tmp_path, spec, robot_file=path, frozen_s=1.0)
    robot = Robot(watcher)

    def says(name: str) -> str:
        statuses = {s.name.partition(": ")[2]: s for s in reports[-1].status} if reports else {}
        found = statuses.get(name)
        return "" if found is None else f"{found.level[0]} {found.message}"

    hand, still = (JOINTS, "hand"), packed("JPEG", np.full((32, 32, 3), 90, np.uint8))
    fine = {
        ("sensor_msgs/Image", "eye"): camera(),
        ("sensor_msgs/CompressedImage", "wrist"): noise,
        (JOINTS, "arm"): joints(pan=0.5),
        hand: joints(grip=0.1),
    }

    def broken(change: dict, name: str, *parts: str) -> None:
        robot.sends = {**fine, **change}
        stopped(commands, robot, f"a stop for {parts}")
        robot.until(lambda: all(p in says(name) for p in parts), f"{parts} of {says(name)}")
        robot.sends = dict(fine)
        answered(commands, robot, f"the policy after {parts}")
        well = (
            (lambda: parts[0] not in says(name))
            if name == "policy"
            else lambda: says(name)[0] == "0"
        )
        robot.until(well, f"the end of {parts}")

    robot.sends = dict(fine)
    answered(commands, robot, "the policy")
    broken({hand: []}, "sensor body.hand", "/robot1/hand is silent")
    broken({hand: joints(grip=float("nan"))}, "policy", "nan_obs", "grip of body", "/robot1/arm")
    broken({(JOINTS, "arm"): joints(pan2=0.5)}, "sensor body.arm", "pan came last", "pan2")
    wrist = ("sensor_msgs/CompressedImage", "wrist")
    broken({wrist: still}, "policy", "frozen_frame", "(wrist)")
    assert processes.stop("policy_node") == 0
