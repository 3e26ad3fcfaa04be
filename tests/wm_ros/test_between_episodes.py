"""What an arm is sent while its reset service is at work, and where it goes on afterwards."""

import numpy as np
import pytest

from wm_core.robot.reading import read_text
from wm_core.robot.robot_file import RobotFile
from wm_ros.commands.build import commands_of
from wm_ros.episodes.experience import Recorder
from wm_ros.episodes.judge import Judge
from wm_ros.pilot import Pilot
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.robot import robot_of
from wm_ros.safety.actuation import Actuation
from wm_ros.safety.guard import Guard
from wm_ros.safety.interventions import Interventions
from wm_ros.sensors.source import Senses
from wm_ros.settings import PolicySettings

PERIOD_NS = 50_000_000
TEXT = """\
rate_hz: 20
observations: {proprio: {type: sensor_msgs/JointState, joints: [a, b]}}
actions:
  type: sensor_msgs/JointState
  joints: [a, b]
  mode: position
  low: -2
  high: 2
  max_rate: 1
reward: {expression: "a", required: false}
episode: {end_if: "a > 0.9", reset: {service: home, quiet: true}, autostart: false}
"""


class Arm:
    """An arm by its file whose pose is set by hand; it ticks without ROS."""

    def __init__(self, folder, text, policy_at):
        pytest.importorskip("sensor_msgs", reason="needs ROS 2 (sensor_msgs)")
        (folder / "robot.yaml").write_text(text)
        settings = PolicySettings(robot_file=str(folder / "robot.yaml"), exploration="mean")
        robot = robot_of(settings, {}, {})
        spec = read_text(RobotFile, text).spec()
        spec = spec.model_copy(update={"action": spec.action.model_copy(update={"max_change": 2})})
        policy_at(folder / "policy", bias=1.0, spec=spec)
        self.slot = PolicySlot(FolderSource(folder / "policy"), settings)
        self.judge, self.steps, self.calls = Judge(robot), [], 0
        self.judge.episodes.call_reset = self._call
        self.pose, self.tick_number = np.array([0.5, -0.5]), 0
        commands, self.recorder = commands_of(robot), Recorder(reward_required=False)
        self.pilot = Pilot(
            self.slot,
            Guard(robot.settings),
            Actuation(commands, lambda names: self.pose),
            self.judge,
            self.recorder,
            robot.settings,
            interventions=Interventions(robot.settings),
        )
        self.pilot.activate(0)
        self.slot.look()
        self.slot.between_ticks()
        self.recorder.open(lambda step: self.steps.append(step) is None, PERIOD_NS)
        commands.check(spec.action)
        self.judge.begin(spec, PERIOD_NS)
        self.pilot.begin(self.slot.runner)

    def _call(self):
        self.calls += 1
        return True

    def tick(self, a=0.0):
        """The command of the next tick; None where nothing is sent."""
        self.tick_number += 1
        now = self.tick_number * PERIOD_NS
        obs = {"proprio": np.array([a, 0], np.float32)}
        decision = self.pilot.decide(Senses(obs, now, True, 0.0, 0.0), now)
        self.pilot.sent(decision, missed=False)
        self.reason = decision.safe
        command = decision.command
        return None if command is None else [round(float(value), 3) for value in command]


@pytest.fixture
def arm(tmp_path, policy_at):
    """An arm that waits for its first episode; the policy wants both joints at 2 rad."""
    return Arm(tmp_path, TEXT, policy_at)


def test_a_quiet_reset_drives_the_arm_alone_and_the_policy_begins_where_it_left_it(arm):
    assert arm.tick() == [0.5, -0.5]  # holds the pose that is known
    arm.judge.episodes.ask_start()
    assert arm.tick() == [0.55, -0.45]  # 1 rad/s towards 2 rad, from the pose
    assert arm.tick() == [0.6, -0.4]
    assert arm.tick(a=1.0) == [0.6, -0.4]  # the last of the episode: holds
    assert (arm.reason, arm.calls) == ("resetting", 1)
    for pose in (0.3, 0.0, -1.0):
        arm.pose = np.array([pose, pose])
        assert arm.tick() is None
    arm.judge.episodes.on_reset("")
    assert arm.tick() == [-1.0, -1.0]  # waits for a start, and holds the new pose
    assert arm.reason == "no_episode"
    arm.judge.episodes.ask_start()
    assert arm.tick() == [-0.95, -0.95]  # and begins there
    arm.recorder.close()
    assert [step.is_last for step in arm.steps] == [False, False, True, True]
    assert [step.is_first for step in arm.steps] == [True, False, False, True]
    assert not any(step.is_terminal for step in arm.steps)


def test_a_quiet_reset_that_fails_ends_in_the_safe_action(arm):
    arm.judge.episodes.ask_start()
    arm.tick()
    arm.tick(a=1.0)
    assert arm.tick() is None
    arm.pose = np.array([0.2, 0.2])
    arm.judge.episodes.on_reset("the reset failed: stuck")
    assert arm.tick() == [0.2, 0.2]  # holds where it was left
    assert arm.reason == "reset_failed"


def test_without_quiet_the_safe_action_lasts_and_the_arm_begins_at_its_pose(tmp_path, policy_at):
    arm = Arm(tmp_path, TEXT.replace(", quiet: true", ""), policy_at)
    arm.judge.episodes.ask_start()
    assert arm.tick() == [0.55, -0.45]
    assert arm.tick(a=1.0) == [0.55, -0.45]
    arm.pose = np.array([0.0, 0.0])  # another controller has moved it
    assert arm.tick() == [0.55, -0.45]
    arm.judge.episodes.on_reset("")
    arm.judge.episodes.ask_start()
    assert arm.tick() == [0.05, 0.05]
