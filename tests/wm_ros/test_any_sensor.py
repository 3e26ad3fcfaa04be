"""Every kind of sensor over real topics: what the policy gets is what was sent, or it stops."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack

import numpy as np
import pytest

from tests.wm_ros.conftest import Watcher
from tests.wm_ros.played_sensors import (
    BODY,
    EVERYTHING,
    PERIOD_S,
    TWIST,
    Robot,
    answered,
    everything,
    image,
    make,
    moving,
    of_file,
    packed,
    recorded,
    start,
    turned,
)
from wm_core.robot import RobotFile
from wm_ros.sensors.table import Sensors

pytestmark = pytest.mark.ros


@pytest.fixture
def robot(watcher) -> Robot:
    return Robot(watcher)


@pytest.fixture
def commands(watcher):
    from geometry_msgs.msg import TwistStamped

    return watcher.listen(TwistStamped, "cmd_vel")


@pytest.fixture
def status(watcher):
    """The newest report of the node."""
    import json

    from std_msgs.msg import String

    from wm_ros import qos

    reports = watcher.listen(String, "policy/status", qos.latched())
    return lambda: json.loads(reports[-1].data) if reports else {}


# ------------------------------------------------------------------------ everything in one robot


def test_every_kind_of_message_reaches_policy_and_record_as_the_robot_file_says(
    processes, watcher, robot, commands, status, policy_at, tmp_path
):
    spec, file = of_file(tmp_path, EVERYTHING)
    assert dict(zip(spec.vectors["body"].names, BODY, strict=True)) == {k: k for k in BODY}
    start(processes, policy_at, tmp_path, spec, robot_file=file)
    robot.sends = everything()
    wind = make("geometry_msgs/TwistStamped", twist__linear__x=-3.0)
    goal = make(
        "geometry_msgs/PoseStamped", pose__position__x=8.0, pose__orientation=turned("z", -1.0)
    )
    robot.until(
        lambda: "no_body.wind" in status().get("safe_by_reason", {}), "a wait for the wind"
    )
    old = [("geometry_msgs/TwistStamped", "wind", wind, 1)]  # by their stamps, of long ago
    old += [("geometry_msgs/PoseStamped", "goal", goal, 1)]
    robot.publish_until(lambda: moving(commands), "a robot that moves", *old)
    answered(commands, robot, "a robot that goes on without another wind or goal")
    steps = recorded(processes, tmp_path)
    assert steps
    last = steps[-1].obs
    np.testing.assert_allclose(last["body"], [*BODY.values()], atol=1e-6)
    assert (last["image"][-1] == (200, 40, 60)).all()
    assert (last["side"] == (10, 200, 30)).all()
    assert (last["far"] == 1234).all()
    assert (last["grip"] == 765).all()


@pytest.fixture
def heard(processes, watcher, tmp_path):
    """The sensors of the robot with everything, subscribed by a node of the test's own."""
    from wm_ros.topics.sensors import SensorTopics

    spec, file = of_file(tmp_path, EVERYTHING.replace("tolerance_s: 3.0", "tolerance_s: 0.5"))
    sensors = Sensors.of_file(RobotFile.load(file), round(PERIOD_S * 1e9))
    sensors.begin(spec, round(PERIOD_S * 1e9), 0.5)

    def remember(source, msg):
        sensors.on_message(source, msg, time.monotonic_ns())

    with ExitStack() as closers:
        SensorTopics(watcher.node, closers, sensors, reliable=False, on_message=remember)
        yield sensors


GREY, COLOUR = np.full((32, 32), 90, np.uint8), np.full((32, 32, 3), 90, np.uint8)
EYE, SIDE = ("sensor_msgs/Image", "eye"), ("sensor_msgs/CompressedImage", "side/compressed")
FAR = ("sensor_msgs/Image", "far")
NEAR = ("sensor_msgs/CompressedImage", "near/compressedDepth")


def misfits() -> list:
    """Topics, messages that do not fit, and what is said of each."""
    flat = make("sensor_msgs/Imu", orientation=turned("y", 0.5))
    flat.orientation_covariance[0] = -1.0
    zeros = make("sensor_msgs/Imu", orientation=make("geometry_msgs/Quaternion", w=0.0))
    narrow = make("sensor_msgs/LaserScan", range_max=10.0)
    return [
        (EYE, image("mono8", GREY), "accept_mono in the robot file"),
        (EYE, image("rgb16", COLOUR), "expected encoding rgb8 or bgr8"),
        (EYE, image("rgb8", COLOUR[:8, :8], width=8), "enlarging is not supported"),
        (EYE, image("rgb8", COLOUR, width=64), "expected at least 32 rows of 192 bytes"),
        (EYE, image("yuyv", GREY[:, :30], width=15), "expected an even size for yuyv"),
        (SIDE, packed("JPEG", COLOUR, cut=0.6), "camera: expected a"),
        (SIDE, packed("GIF", GREY), "expected a JPEG or PNG"),
        (SIDE, packed("PNG", GREY), "expected colours, got a grey PNG"),
        (SIDE, packed("PNG", np.zeros((4200, 4200), np.uint8)), "at most 16777216 pixels"),
        (FAR, image("rgb8", COLOUR), "expected encoding 16UC1 or 32FC1"),
        (NEAR, packed("JPEG", COLOUR), "depth: expected a PNG of 16 bits"),
        (("sensor_msgs/Imu", "imu/data"), flat, "measures none"),
        (("sensor_msgs/Imu", "imu/data"), zeros, "expected an orientation"),
        (("sensor_msgs/LaserScan", "scan"), narrow, "expected readings, got 0"),
        (
            ("std_msgs/Float32MultiArray", "touch"),
            make("std_msgs/Float32MultiArray", data=[1.0]),
            "expected 2 numbers, got 1",
        ),
        (
            ("sensor_msgs/JointState", "hand/joints"),
            make("sensor_msgs/JointState", name=["grip", "grip"], position=[0.0, 1.0]),
            "expected each name once, got twice: ['grip']",
        ),
    ]


def fitting() -> list:
    """Topics, other messages that fit, the input and what its last numbers are then."""
    from tests.wm_ros.sensors.test_encodings import packed_422

    metres = np.full((8, 8), 1.5, np.float32)
    large = np.full((480, 640, 3), (10, 200, 30), np.uint8)
    return [
        (EYE, image("8UC3", COLOUR), "image", 90),
        (EYE, image("uyvy", packed_422(COLOUR, "uyvY")), "image", 90),
        (SIDE, packed("JPEG", large, "rgb8; jpeg compressed bgr8"), "side", 30),
        (FAR, image("32FC1", metres, width=8), "far", 1500),
        (NEAR, packed("PNG", np.full((8, 8), 55, np.uint16)), "grip", 55),
    ]


def test_whatever_a_sensor_sends_amiss_is_said_and_forgotten_with_the_next_good_message(
    processes, watcher, heard
):
    driver = Watcher(processes.domain)
    robot = Robot(driver)
    robot.sends = good = everything()
    good[("geometry_msgs/TwistStamped", "wind")] = make("geometry_msgs/TwistStamped")
    good[("geometry_msgs/PoseStamped", "goal")] = make("geometry_msgs/PoseStamped")
    unseen = make("sensor_msgs/Range", range=math.nan, max_range=4.0)
    good[("sensor_msgs/Range", "range/front")] = unseen
    seen = []

    def sense():
        watcher.executor.spin_once(timeout_sec=0.0)
        now_ns = time.monotonic_ns()
        seen.append(heard.sense(fresh=True, now_ns=now_ns, ros_now_ns=time.time_ns()))
        return seen[-1]

    try:
        for topic, msg, said in misfits():
            robot.sends = good
            robot.until(lambda: sense().obs is not None, "an observation")
            robot.sends = good | {topic: msg}
            robot.until(
                lambda s=said: s in sense().detail and seen[-1].refused == "frame_refused",
                f"{said!r} of {topic}",
            )
        for topic, msg, name, value in fitting():
            robot.sends = good | {topic: msg}
            robot.until(
                lambda n=name, v=value: (
                    (obs := sense().obs) is not None and abs(int(obs[n].reshape(-1)[-1]) - v) <= 2
                ),
                f"{value} in {name}",
            )
    finally:
        driver.close()


# -------------------------------------------------------------------------------- no camera at all

WALKER = (
    """
robot: walker
rate_hz: 25
tolerance_s: 0.5
observations:
  body:
    - {type: sensor_msgs/Imu, topic: imu}
    - {type: sensor_msgs/JointState, joints: [hip, knee]}
"""
    + TWIST
)


@pytest.mark.parametrize("pace", ["timer", "body"])
def test_a_robot_without_a_camera_acts_stops_for_its_joints_and_goes_on(
    processes, watcher, robot, commands, status, policy_at, tmp_path, pace
):
    spec, file = of_file(tmp_path, f"pace: {pace}\n{WALKER}")
    start(processes, policy_at, tmp_path, spec, robot_file=file)
    body = {("sensor_msgs/Imu", "imu"): make("sensor_msgs/Imu", linear_acceleration__z=9.8)}
    legs = make("sensor_msgs/JointState", name=["knee", "hip"], position=[0.2, 0.1])
    for _ in range(2):
        robot.sends = body | {("sensor_msgs/JointState", "joint_states"): legs}
        robot.until(lambda: moving(commands), "a robot that moves")
        robot.sends = body
        robot.until(lambda: not moving(commands), "a robot that stops")
    named = "no_body.joint_states"
    robot.until(lambda: named in status().get("safe_by_reason", {}), f"the reason {named}")
    steps = recorded(processes, tmp_path)
    np.testing.assert_allclose(steps[-1].obs["body"], [0, 0, 0, 0, 0, 9.8, 0.1, 0.2], atol=1e-6)
