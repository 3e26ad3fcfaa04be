"""A node by a robot file: rewards, ends of episodes, resets; over real topics."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest

from tests.wm_ros.conftest import steps_in
from wm_core.robot import RobotFile
from wm_ros.convert import set_time

pytestmark = pytest.mark.ros

MS = 1_000_000
BASE = """\
robot: base
rate_hz: 20
tolerance_s: 0.02
observations:
  image: {type: sensor_msgs/Image, topic: front/image, height: 32, width: 32}
  proprio: {type: sensor_msgs/JointState, topic: arm/joints, joints: [a, b]}
actions: {type: geometry_msgs/TwistStamped, topic: drive, low: [-1, -1], high: [1, 1]}
values:
  progress: {type: nav_msgs/Odometry, topic: odom, field: pose.pose.position.x}
  bonus: {type: std_msgs/Float32, topic: bonus}
reward: {expression: "progress + bonus"}
episode: {terminal_if: "a > 1.5", reset: {service: home}}
"""
WALKER = """\
robot: walker
rate_hz: 25
observations:
  body: {type: sensor_msgs/JointState, topic: legs, joints: [hip, knee], latest: true}
actions: {type: geometry_msgs/Twist, topic: stride, low: [-1, -1], high: [1, 1]}
reward: {function: "walker_rewards:score"}
episode: {max_s: 0.4, autostart: false, start_topic: go, fail_topic: fallen}
safety: {latch_safe: false}
"""


class Player:
    """Plays a robot: publishes each sensor of ``BASE`` whenever it is asked to tick."""

    def __init__(self, watcher):
        from geometry_msgs.msg import TwistStamped
        from nav_msgs.msg import Odometry
        from sensor_msgs.msg import Image, JointState
        from std_msgs.msg import Float32

        self._kinds = {"joints": JointState, "odometry": Odometry, "bonus": Float32}
        topics = {"joints": "arm/joints", "odometry": "odom", "bonus": "bonus"}
        self._watcher, node = watcher, watcher.node
        self._images = node.create_publisher(Image, "front/image", 1)
        self._out = {n: node.create_publisher(self._kinds[n], t, 10) for n, t in topics.items()}
        self.plays, self.a, self.apart_ns = {"joints", "odometry", "bonus"}, 0.0, MS
        self.progress: dict[int, float] = {}  # by stamp of the image
        self._rng, self._due = np.random.default_rng(0), 0.0
        self.commands = watcher.listen(TwistStamped, "drive")

    def tick(self):
        """Publish everything at one stamp, but for ``apart_ns``, at 20 Hz."""
        from wm_ros.sensors.camera import to_image

        if time.monotonic() < self._due:
            return
        self._due, stamp_ns = time.monotonic() + 0.05, time.time_ns()
        self.progress[stamp_ns] = float(len(self.progress))
        for name in sorted(self.plays):
            msg = self._kinds[name]()
            if name == "joints":
                msg.name, msg.position = ["b", "a"], [0.5, self.a]
            elif name == "odometry":
                msg.pose.pose.position.x = self.progress[stamp_ns]
            else:
                msg.data = 0.25
            if hasattr(msg, "header"):
                set_time(msg.header.stamp, stamp_ns + self.apart_ns)
            self._out[name].publish(msg)
        frame = self._rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        self._images.publish(to_image(frame, stamp_ns, "camera"))

    def until(self, ready, what):
        """Go on publishing until ``ready``."""

        def played():
            self.tick()
            return ready()

        self._watcher.until(played, what)


def start(processes, folder, text, policy_at, **params):
    """Start a node with that robot file and a policy that moves; its status as a function."""
    (folder / "robot.yaml").write_text(text)
    params = {"robot_file": str(folder / "robot.yaml"), "state_dir": str(folder / "s"), **params}
    if "policy_dir" not in params:
        spec = RobotFile.load(folder / "robot.yaml").spec()
        params["policy_dir"] = str(policy_at(folder / "policy", bias=0.5, spec=spec))
    path = os.pathsep.join([str(folder), processes.env["PYTHONPATH"]])  # the owner's modules
    processes.start("policy_node", params, env=processes.env | {"PYTHONPATH": path})


@pytest.fixture
def status(watcher):
    """The newest ``~/status`` of the node; {} before the first."""
    from std_msgs.msg import String

    from wm_ros import qos

    heard = watcher.listen(String, "policy/status", qos.latched())
    return lambda: json.loads(heard[-1].data) if heard else {}


def call(player, watcher, kind, name):
    """Call a service of the node while the robot plays on."""
    client = watcher.node.create_client(kind, f"policy/{name}")
    player.until(client.service_is_ready, f"the service {name}")
    future = client.call_async(kind.Request())
    player.until(future.done, f"an answer of {name}")
    return future.result()


def check_recorded(steps, player):
    """Rewards are those of the robot file, and a robot that fell ended its episode."""
    # Where this machine is too busy the record is cut as well, by steps that are not terminal.
    fallen = [step for step in steps if step.obs["proprio"][0] > 1.5 and not step.is_first]
    assert all(step.is_last and step.is_terminal for step in fallen)
    assert any(step.is_terminal for step in steps)
    for step in steps:
        wanted = 0.0 if step.is_first else player.progress[step.stamp_ns] + 0.25
        assert step.reward == pytest.approx(wanted)
    assert all(step.is_valid for step in steps)


def test_rewards_ends_and_resets_of_a_robot_file(processes, watcher, status, policy_at, tmp_path):
    from std_srvs.srv import Trigger

    homes, answers = [], [(True, ""), (False, "arm is stuck"), (True, "")]

    def home(request, response):
        response.success, response.message = answers[len(homes)]
        homes.append(player.a)
        player.a = 0.0
        return response

    player = Player(watcher)
    player.plays -= {"odometry"}
    start(processes, tmp_path, BASE, policy_at)

    def problem():
        return status().get("reward_problem", "")

    def standing(word):
        return lambda: status().get("standing") == word

    # A topic that a reward reads is silent: the policy acts, nothing is stored, and it is said.
    player.until(lambda: "/robot1/odom" in problem(), "the missing topic")
    player.until(standing("acts"), "a policy that acts all the same")
    assert status()["steps_recorded"] <= 1  # the first of an episode has no reward to miss
    player.plays |= {"odometry"}
    player.until(lambda: status()["steps_recorded"] > 3, "steps with a reward")

    # The reset service is not there: the robot waits for it in its safe action.
    player.a = 2.0
    player.until(standing("resetting"), "the wait for a reset")
    assert player.commands[-1].twist.linear.x == 0.0
    service = watcher.node.create_service(Trigger, "home", home)
    player.until(lambda: homes, "the call of the reset")
    player.until(standing("acts"), "a new episode")

    # An operator ends the episode, the reset refuses, and a person puts the robot back.
    assert call(player, watcher, Trigger, "episode/end").success
    player.until(standing("reset_failed"), "the refusal of the reset")
    assert "arm is stuck" in status()["standing_text"]
    before = status()["episodes"]
    assert call(player, watcher, Trigger, "episode/start").success
    player.until(standing("acts"), "an episode that a person started")
    refused = call(player, watcher, Trigger, "episode/start")
    assert (refused.success, "runs already" in refused.message) == (False, True)

    # A failure is the end of everything, and the last one is answered by a good reset.
    assert call(player, watcher, Trigger, "episode/fail").success
    player.until(lambda: len(homes) == 3, "the third reset")
    player.until(lambda: status()["episodes"] == before + 1, "the count of episodes")
    player.until(standing("acts"), "the episode after it")
    recorded = status()["steps_recorded"]
    player.until(lambda: status()["steps_recorded"] > recorded + 2, "steps of the next episode")
    watcher.node.destroy_service(service)
    assert processes.stop("policy_node") == 0

    check_recorded(steps_in(tmp_path / "s" / "spool"), player)


def test_messages_too_far_apart_are_no_reward_and_a_reset_may_never_answer(
    processes, watcher, status, policy_at, tmp_path
):
    import rclpy
    from std_srvs.srv import Empty, Trigger

    player = Player(watcher)
    deaf = rclpy.create_node("deaf", namespace="/robot1", context=watcher.context)
    service = deaf.create_service(Empty, "home", lambda request, response: response)
    text = BASE.replace("service: home", "service: home, type: std_srvs/Empty, wait_s: 1.0")
    start(
        processes,
        tmp_path,
        text.replace("topic: arm/joints,", "topic: arm/joints, latest: true,"),
        policy_at,
    )
    player.until(lambda: status().get("steps_recorded", 0) > 3, "steps with a reward")
    player.apart_ns = 30 * MS
    player.until(lambda: "odom" in status()["reward_problem"], "the odometry that is too late")
    player.apart_ns = -19 * MS
    recorded = status()["steps_recorded"]
    player.until(lambda: status()["steps_recorded"] > recorded + 3, "steps with a reward again")

    player.a = 2.0
    player.until(lambda: status()["standing"] == "reset_failed", "a reset that does not answer")
    assert "home does not answer for 1 s" in status()["standing_text"]
    assert player.commands[-1].twist.linear.x == 0.0
    player.a = 0.0
    assert call(player, watcher, Trigger, "episode/start").success
    player.until(lambda: status()["standing"] == "acts", "an episode that a person started")
    deaf.destroy_service(service)
    deaf.destroy_node()
    assert processes.stop("policy_node") == 0


def test_a_walker_without_a_camera_starts_by_a_topic_and_ends_by_time_or_a_fall(
    processes, watcher, status, policy_at, tmp_path
):
    from geometry_msgs.msg import Twist
    from rcl_interfaces.srv import SetParameters
    from rclpy.parameter import Parameter
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Bool

    (tmp_path / "walker_rewards.py").write_text(
        "def score(values, obs, prev_action):\n"
        "    return 10.0 + float(obs['body'][0]) - float(prev_action[0])\n"
    )
    commands = watcher.listen(Twist, "stride")
    legs = watcher.node.create_publisher(JointState, "legs", 10)
    go, fallen = (watcher.node.create_publisher(Bool, name, 10) for name in ("go", "fallen"))
    start(processes, tmp_path, WALKER, policy_at)
    sent = 0.0

    def until(ready, what, flag=None):
        """Publish the legs, and a flag if one is given, at 20 Hz until ``ready``."""

        def played():
            nonlocal sent
            if time.monotonic() > sent:
                sent = time.monotonic() + 0.05
                legs.publish(JointState(name=["knee", "hip"], position=[0.5, 0.25]))
                if flag is not None:
                    flag.publish(Bool(data=True))
            return ready()

        watcher.until(played, what)

    def moving():
        return any(m.linear.x for m in commands[-3:])

    until(lambda: status().get("standing") == "no_episode", "the wait for a start")
    assert not any(m.linear.x for m in commands)
    latch = Parameter("latch_safe", value=True).to_parameter_msg()
    request = SetParameters.Request(parameters=[latch])
    (answer,) = watcher.call(SetParameters, "policy/set_parameters", request).results
    assert not answer.successful
    assert "is stated by" in answer.reason
    for _ in range(2):
        until(moving, "a walk", go)
        until(lambda: not moving(), "its end by time")
    assert status()["standing"] in ("no_episode", "acts")
    until(lambda: status()["episode_ended_by"] == "max_s", "the reason of the end")
    until(moving, "another walk", go)
    until(lambda: status()["episode_ended_by"] == "fallen", "the end by a fall", fallen)
    assert processes.stop("policy_node") == 0

    steps = steps_in(tmp_path / "s" / "spool")
    ends = [step for step in steps if step.is_last]
    assert {step.is_terminal for step in ends} == {True, False}
    assert {round(s.reward, 4) for s in steps if not s.is_first and not s.is_last} == {9.75}


def test_a_policy_that_chooses_sends_the_whole_commands_of_its_choices(
    processes, watcher, status, policy_at, tmp_path
):
    text = BASE[: BASE.index("values:")].replace(
        "high: [1, 1]}",
        "high: [1, 1], choices: {stop: [0, 0], left: [0.25, 0.5], back: [-0.5, 0]}}",
    )
    (tmp_path / "robot.yaml").write_text(text)
    spec = RobotFile.load(tmp_path / "robot.yaml").spec()
    policy = policy_at(tmp_path / "policy", bias=[0.1, 0.9, 0.2], spec=spec)
    player = Player(watcher)
    start(processes, tmp_path, text, policy_at, policy_dir=str(policy), reward_required=False)
    player.until(lambda: any(m.twist.linear.x for m in player.commands), "a command")
    player.until(lambda: status().get("steps_recorded", 0) > 3, "steps of its choices")
    sent = {(m.twist.linear.x, m.twist.angular.z) for m in player.commands}
    assert sent <= {(0.0, 0.0), (0.25, 0.5)}
    assert processes.stop("policy_node") == 0
    acted = [step for step in steps_in(tmp_path / "s" / "spool") if not step.is_intervention]
    assert {tuple(step.action) for step in acted} == {(0.0, 1.0, 0.0)}


@pytest.mark.parametrize(
    ("text", "params", "said"),
    [
        (BASE.replace("rate_hz: 20", "rate_hz: 20Hz"), {}, "robot.yaml:2: rate_hz: expected a nu"),
        (BASE, {"command_type": "twist"}, "parameter command_type is 'twist', but"),
        (BASE.replace("[a, b]", "[a, b, c]"), {"policy_dir": "two"}, "the policy wants 2"),
    ],
)
def test_a_file_that_cannot_be_is_refused_by_one_line_and_status_2(
    text, params, said, processes, policy_at, spec_of, tmp_path
):
    if "policy_dir" in params:
        spec = read(BASE, tmp_path)
        params = {"policy_dir": str(policy_at(tmp_path / "other", spec=spec))}
    else:
        params = {"policy_dir": str(policy_at(tmp_path / "policy", spec=spec_of())), **params}
    start(processes, tmp_path, text, policy_at, **params)
    assert processes.running["policy_node"].wait(timeout=300) == 2
    log = processes.said("policy_node")
    assert said in log
    assert "Traceback" not in log


def read(text, folder):
    """The spec of a robot file."""
    path = folder / "other.yaml"
    path.write_text(text)
    return RobotFile.load(path).spec()
