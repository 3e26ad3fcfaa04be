"""A simulated robot obeys every kind of command that a robot file may name."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
pytestmark = pytest.mark.ros

from wm_core.robot import RobotFile  # noqa: E402
from wm_ros import qos  # noqa: E402
from wm_ros.commands.from_file import commands_of_channels  # noqa: E402
from wm_ros.simulated.body import FileBody  # noqa: E402

HEAD = (
    "rate_hz: 10\npace: timer\nobservations: {v: {type: sensor_msgs/Range, topic: r}}\nactions:\n"
)
CHANNELS = (
    "{type: geometry_msgs/Twist, topic: a, low: -1.0, high: 1.0}",
    "{type: geometry_msgs/TwistStamped, topic: b, fields: linear.y, low: -1.0, high: 1.0}",
    "{type: trajectory_msgs/JointTrajectory, topic: c, joints: [x, y], low: -1.0, high: 1.0}",
    "{type: sensor_msgs/JointState, topic: d, joints: [p], mode: effort, low: -1.0, high: 1.0}",
    "{type: sensor_msgs/JointState, topic: e, joints: [q], mode: velocity, low: -1.0, high: 1.0}",
    "{type: std_msgs/Float64MultiArray, topic: f, names: [s, t], mode: velocity, "
    "low: -1.0, high: 1.0}",
    "{type: gripper, topic: g, joint: hand, open: 0.0, closed: 1.0}",
)
SIZES = (2, 1, 2, 1, 1, 2, 1)


@pytest.fixture
def body_of(watcher, tmp_path):
    """Makes the body of a robot file, and what publishes to each of its limbs."""

    def make(actions: str):
        path = tmp_path / "robot.yaml"
        path.write_text(HEAD + actions)
        file = RobotFile.load(path)
        heard: dict[int, tuple] = {}
        body = FileBody(
            watcher.node, file, frame_id="c", on_command=lambda i, v, s: heard.update({i: (v, s)})
        )
        commands = commands_of_channels(file.actions)
        commands.begin(file.action_spec(0.1), 0.1)
        out = [
            watcher.node.create_publisher(c.command.message_class, c.command.topic, qos.command())
            for c in commands.channels
        ]
        watcher.until(lambda: all(p.get_subscription_count() for p in out), "subscriptions")
        return body, commands, out, heard

    return make


def test_each_limb_gets_its_part_of_the_command(body_of, watcher):
    actions = "".join(f"  - {channel}\n" for channel in CHANNELS)
    body, commands, out, heard = body_of(actions)
    assert [limb.size for limb in body.limbs] == list(SIZES)
    wanted = np.linspace(0.1, 0.9, sum(SIZES)).astype(np.float32)
    sent = commands.encode(wanted, stamp_ns=7_000_000_001, frame_id="base")
    for i, msg in sent:
        out[i].publish(msg)
    watcher.until(lambda: len(heard) == len(SIZES), "every command")
    got = np.concatenate([heard[i][0] for i in range(len(SIZES))])
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    for i, limb in enumerate(body.limbs):
        assert heard[i][1] == (7_000_000_001 if limb.command.stamped else 0) or i == 2
    # Positions stay where they were sent when commands end; velocities and efforts become zero.
    stay = [i for i, limb in enumerate(body.limbs) if not limb.rests_at_zero]
    assert stay == [2, 6]


def test_a_choice_arrives_as_the_numbers_that_the_file_gives_it(body_of, watcher):
    body, commands, out, heard = body_of(
        "  {type: geometry_msgs/Twist, low: -1.0, high: 1.0,\n"
        "   choices: {stop: [0.0, 0.0], ahead: [0.5, 0.0], left: [0.0, 0.75]}}\n"
    )
    assert [limb.size for limb in body.limbs] == [2]
    for choice, numbers in enumerate(([0.0, 0.0], [0.5, 0.0], [0.0, 0.75])):
        heard.clear()
        ((i, msg),) = commands.encode(np.array([choice]), stamp_ns=1, frame_id="base")
        out[i].publish(msg)
        watcher.until(lambda: heard, "the command")
        np.testing.assert_allclose(heard[0][0], numbers)
