"""Goals that were sent once, by publishers that keep them for whoever comes late or do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.wm_ros.played_sensors import (
    TWIST,
    Robot,
    answered,
    camera,
    make,
    moving,
    of_file,
    recorded,
    start,
)

pytestmark = pytest.mark.ros

FILE = f"""
robot: seeker
rate_hz: 25
observations:
  image: {{type: sensor_msgs/Image, topic: eye, height: 32, width: 32}}
  goal:
    - {{type: geometry_msgs/PoseStamped, topic: goal, latest: true}}
    - {{type: geometry_msgs/Twist, topic: wanted, latest: true}}
{TWIST}"""


@pytest.fixture
def publisher(watcher):
    """Makes publishers in the test's own node, latched or not."""
    from wm_ros import qos
    from wm_ros.convert import message_class

    def make_one(kind: str, topic: str, *, latched: bool):
        profile = qos.latched() if latched else 10
        return watcher.node.create_publisher(message_class(kind), topic, profile)

    return make_one


def goal(x: float):
    return make("geometry_msgs/PoseStamped", pose__position__x=x, pose__orientation__w=1.0)


def wanted(x: float):
    return make("geometry_msgs/Twist", linear__x=x)


def last_goal(steps) -> tuple[float, float]:
    vector = steps[-1].obs["goal"]
    return float(vector[0]), float(vector[7])


def test_a_goal_of_before_the_start_is_heard_and_one_that_follows_it_counts(
    processes, watcher, publisher, policy_at, tmp_path
):
    from geometry_msgs.msg import TwistStamped

    commands = watcher.listen(TwistStamped, "cmd_vel")
    poses = publisher("geometry_msgs/PoseStamped", "goal", latched=True)
    twists = publisher("geometry_msgs/Twist", "wanted", latched=True)
    poses.publish(goal(1.0))
    twists.publish(wanted(0.5))
    spec, file = of_file(tmp_path, FILE)
    start(processes, policy_at, tmp_path, spec, robot_file=file)
    robot = Robot(watcher)
    robot.sends = {("sensor_msgs/Image", "eye"): camera()}
    answered(commands, robot, "a policy that heard both goals")
    poses.publish(goal(2.0))
    answered(commands, robot, "three more answers")
    steps = recorded(processes, tmp_path)
    assert last_goal([s for s in steps if s.obs["goal"][0] == 1.0]) == (1.0, 0.5)
    assert last_goal(steps) == (2.0, 0.5)
    assert "incompatible QoS" not in processes.said("policy_node")


def test_a_publisher_that_keeps_nothing_is_heard_too_beside_a_latched_one(
    processes, watcher, publisher, policy_at, tmp_path
):
    from geometry_msgs.msg import TwistStamped

    commands = watcher.listen(TwistStamped, "cmd_vel")
    plain = publisher("geometry_msgs/PoseStamped", "goal", latched=False)
    twists = publisher("geometry_msgs/Twist", "wanted", latched=False)
    spec, file = of_file(tmp_path, FILE)
    start(processes, policy_at, tmp_path, spec, robot_file=file)
    robot = Robot(watcher)
    robot.sends = {
        ("sensor_msgs/Image", "eye"): camera(),
        ("geometry_msgs/Twist", "wanted"): wanted(0.25),  # over and over
    }
    robot.until(lambda: plain.get_subscription_count() >= 1, "a node that listens")
    assert not moving(commands)

    def heard() -> bool:  # best effort may lose one, and the other end may not have matched yet
        twists.publish(wanted(0.25))
        plain.publish(goal(3.0))
        return moving(commands)

    robot.until(heard, "a policy that heard the goal")
    answered(commands, robot, "three more answers")
    latched = publisher("geometry_msgs/PoseStamped", "goal", latched=True)
    latched.publish(goal(4.0))
    robot.until(lambda: latched.get_subscription_count() >= 2, "both subscriptions")
    answered(commands, robot, "three more answers")
    plain.publish(goal(5.0))
    answered(commands, robot, "three more answers")
    steps = recorded(processes, tmp_path)
    seen = [s.obs["goal"][0] for s in steps]
    assert [*dict.fromkeys(seen)] == [3.0, 4.0, 5.0]  # each once, in their order
    np.testing.assert_allclose(steps[-1].obs["goal"][7], 0.25)


def test_what_the_task_names_has_those_names_in_the_simulator_and_in_the_spec(
    processes, watcher, report_of, policy_at, tmp_path, monkeypatch
):
    import gymnasium

    from wm_core.training.tasks import spec_of

    monkeypatch.syspath_prepend(Path(__file__).parent)
    spec = spec_of(gymnasium.make("counting_task:Measuring-v0"), image_size=32)
    assert spec.vectors["state"].names == ("height", "tilt")
    start(processes, policy_at, tmp_path, spec)
    processes.start("sim_node", {"task": "counting_task:Measuring-v0"})
    state = tmp_path / "state"
    watcher.until(
        lambda: report_of(state / "status.json").get("steps_recorded", 0) >= 3, "three steps"
    )
    steps = recorded(processes, tmp_path)
    assert processes.stop("sim_node") == 0
    assert steps[-1].obs["state"].tolist() == [0.25, -0.5]
    assert steps[-1].obs["vector"].tolist() == [0.75]
