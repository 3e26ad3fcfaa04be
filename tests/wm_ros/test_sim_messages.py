"""A simulated robot publishes what the robot's sensors read back: every kind of part."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from wm_core.contract.inputs import Vector  # noqa: E402
from wm_core.robot import RobotFile  # noqa: E402
from wm_ros.sensors.table import sources_of  # noqa: E402
from wm_ros.simulated.messages import image_message, vector_messages  # noqa: E402

ACTION = "actions: {type: geometry_msgs/Twist, low: -1.0, high: 1.0}\n"
STAMP_NS = 5_000_000_000

VECTORS = {
    "{type: sensor_msgs/JointState, joints: [b, a], fields: [position, effort]}": [1, 2, 3, 4],
    "{type: sensor_msgs/JointState, joints: [a, b, c], topic: [left, right], scale: 2.0}": [
        1,
        2,
        3,
    ],
    "{type: sensor_msgs/Imu, fields: [linear_acceleration.z, gravity.x, gravity.y, gravity.z]}": [
        9.8,
        0.6,
        0.0,
        -0.8,
    ],
    "{type: sensor_msgs/Imu, fields: [roll, pitch, yaw]}": [0.3, -0.4, 2.0],
    "{type: nav_msgs/Odometry, fields: [linear.x, angular.z, x, y, yaw]}": [0.5, 1.5, 2, -3, -2.5],
    "{type: sensor_msgs/Range, topic: r}": [0.75],
    "{type: sensor_msgs/LaserScan, beams: 4, from_rad: -1.0, to_rad: 1.0}": [1, 2, 3, 4],
    "{type: sensor_msgs/LaserScan, beams: 8}": [1, 2, 3, 4, 5, 6, 7, 8],
    "{type: std_msgs/Float32MultiArray, topic: n, size: 3, scale: 0.5, offset: 1.0}": [1, 2, 3],
    "{type: std_msgs/Float64MultiArray, topic: n, names: [u, v]}": [-1, 1],
    "{type: geometry_msgs/PoseStamped, topic: goal, fields: [x, y, yaw]}": [1, 2, math.pi / 3],
    "{type: geometry_msgs/Twist, topic: t, fields: [linear.x, angular.z]}": [0.5, -0.5],
    "{type: geometry_msgs/TwistStamped, topic: t, fields: [linear.y]}": [0.25],
}


def parts_of(tmp_path, text: str):
    file = tmp_path / "robot.yaml"
    file.write_text(f"rate_hz: 10\npace: timer\nobservations:\n  v: {text}\n{ACTION}")
    return RobotFile.load(file).observations["v"]


@pytest.mark.parametrize("text", VECTORS)
def test_numbers_come_back_as_they_were(tmp_path, text):
    parts, wanted = parts_of(tmp_path, text), np.array(VECTORS[text], np.float64)
    messages: dict = {}
    vector_messages(parts, wanted, messages)
    (part,) = parts
    assert {*messages} == {*part.topics}
    sources = sources_of("v", part)
    for source in sources:
        msg = messages[source.topic]
        source.ros_now = lambda: STAMP_NS  # what has no stamp counts from its arrival
        if hasattr(msg, "header"):
            msg.header.stamp.sec = STAMP_NS // 10**9
        source.on_message(msg, STAMP_NS)
    kind = Vector(size=part.size, names=part.names)
    got = sources[0].observe(kind, STAMP_NS, 10**9)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_parts_on_one_topic_share_a_message(tmp_path):
    file = tmp_path / "robot.yaml"
    joints = "{type: sensor_msgs/JointState, joints: [%s], fields: [%s]}"
    file.write_text(
        "rate_hz: 10\npace: timer\nobservations:\n"
        f"  one: {joints % ('a, b', 'position')}\n  two: {joints % ('b, c', 'velocity')}\n{ACTION}"
    )
    observations, messages = RobotFile.load(file).observations, {}
    vector_messages(observations["one"], np.array([1.0, 2.0]), messages)
    vector_messages(observations["two"], np.array([3.0, 4.0]), messages)
    (msg,) = messages.values()
    assert list(msg.name) == ["a", "b", "c"]
    assert list(msg.position) == [1.0, 2.0]
    assert list(msg.velocity) == [0.0, 3.0, 4.0]


@pytest.mark.parametrize("kind", ["sensor_msgs/Image", "sensor_msgs/CompressedImage"])
@pytest.mark.parametrize("colours", ["rgb", "mono", "depth"])
def test_pixels_come_back_as_they_were(tmp_path, kind, colours):
    (part,) = parts_of(
        tmp_path, f"{{type: {kind}, topic: c, colours: {colours}, height: 8, width: 8}}"
    )
    rng, channels = np.random.default_rng(0), 3 if colours == "rgb" else 1
    dtype, most = (np.uint16, 9000) if colours == "depth" else (np.uint8, 256)
    pixels = rng.integers(0, most, (8, 8, channels)).astype(dtype)
    (source,) = sources_of("v", part)
    got = source.decode(image_message(part, pixels, STAMP_NS, "camera"), part.input())
    np.testing.assert_array_equal(got, pixels)
