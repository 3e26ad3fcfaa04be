"""A robot file with choices: each channel stops in its own way, by the file and not the policy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wm_ros import test_pilot
from tests.wm_ros.test_actuation import Body
from tests.wm_ros.tiny_policy import choosing_spec
from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec
from wm_core.robot.reading import read_text
from wm_core.robot.robot_file import RobotFile
from wm_ros.commands import COMMANDS, CommandChannel, CommandSet
from wm_ros.commands.from_file import commands_of_channels

HEAD = "rate_hz: 10\nobservations: {image: {type: sensor_msgs/Image, topic: image_raw}}\n"
BASE = (
    "{type: geometry_msgs/Twist, low: -1, high: 1, "
    "choices: {go: [0.5, 0], stop: [0, 0], left: [0.2, 1]}%s}"
)
GRIPPER = (
    "{type: gripper, topic: g, joint: hand, open: 0.08, closed: 0, "
    "choices: {go: [0.06], stop: [0.02], left: [0.02]}%s}"
)
WHEEL = (
    "{type: std_msgs/Float64MultiArray, topic: w, names: [wheel], mode: %s, low: -9, high: 9, "
    "choices: {go: [1], stop: [0], left: [2]}%s}"
)
GO, STOP, LEFT = 0.0, 1.0, 2.0


def file_of(*channels: str) -> RobotFile:
    listed = "".join(f"  - {channel}\n" for channel in channels)
    return read_text(RobotFile, f"{HEAD}actions:\n{listed}")


def driven(*channels: str, noop: int = 1) -> Body:
    """A robot of a file under a policy whose card says that ``noop`` stops."""
    file = file_of(*channels)
    commands = commands_of_channels(file.actions, installed=False)
    action = file.action_spec(0.1).model_copy(update={"noop": noop})
    return Body(*commands.channels, action=action)


@pytest.fixture
def picker():
    """A base that drives and a gripper that goes along, told to go."""
    body = driven(BASE % "", GRIPPER % "")
    assert body.act(GO) == [GO, GO]
    return body


# ------------------------------------------------------------------------------------ stopping


@pytest.mark.parametrize("how", [{}, {"urgent": True}, {"final": True}])
def test_the_base_stops_and_the_gripper_stays_whatever_the_order_of_the_channels(how):
    for channels, stopped in (
        ((BASE % "", GRIPPER % ""), [STOP, GO]),
        ((GRIPPER % "", BASE % ""), [GO, STOP]),
    ):
        body = driven(*channels)
        body.act(GO)
        assert body.safe(**how) == (stopped, frozenset())


def test_before_anything_was_sent_and_after_a_reset_moved_it_a_gripper_gets_nothing(picker):
    fresh = driven(BASE % "", GRIPPER % "")
    command, held = fresh.safe()
    assert (command[0], held) == (STOP, {1})
    picker.actuation.moved_by_others()
    command, held = picker.safe()
    assert (command[0], held) == (STOP, {1})


def test_what_stops_is_the_file_s_and_not_the_policy_s_noop():
    body = driven(BASE % "", noop=0)
    body.act(LEFT)
    for how in ({}, {"urgent": True}, {"final": True}):
        assert body.safe(**how)[0] == [STOP]


def test_an_emergency_stop_keeps_an_arm_that_takes_choices_where_it_is():
    body = driven(GRIPPER % "", noop=0)
    assert body.safe(urgent=True) == (None, {0})
    body.act(STOP)
    assert body.safe(urgent=True)[0] == [STOP]


@pytest.mark.parametrize("mode", ["velocity", "effort"])
def test_a_choice_that_is_held_ends_after_its_time_at_an_emergency_stop_and_at_the_end(mode):
    text = WHEEL % (mode, ", safe: hold, hold_s: 0.5")
    for how in ({"now_s": 0.5}, {"urgent": True}, {"final": True}):
        body = driven(text)
        body.act(LEFT)
        assert body.safe()[0] == [LEFT]
        assert body.safe(**how)[0] == [STOP]


def test_a_channel_without_a_safe_action_counts_as_stopped_once_it_hears_nothing():
    body = driven(BASE % ", safe: none", GRIPPER % "")
    body.act(GO)
    assert body.safe() == ([GO, GO], {0})
    assert body.actuation.last.tolist() == [STOP, GO]


# ---------------------------------------------------------------------- takeover and what was sent


def test_a_person_who_takes_over_one_channel_leaves_the_others_in_their_safe_action(picker):
    command, held = picker.actuation.taken_over({1: np.array([LEFT])}, 0)
    assert (command.tolist(), held) == ([STOP, LEFT], frozenset())
    command, _ = picker.actuation.taken_over({0: np.array([LEFT])}, 0)
    assert command.tolist() == [LEFT, GO]
    command, _ = picker.actuation.taken_over({0: None, 1: None}, 0)  # the person says stop
    assert command.tolist() == [STOP, GO]


def test_what_was_sent_is_the_choice_that_says_all_of_it(picker):
    def sent(*indices):
        return picker.actuation.action_of(np.array(indices, np.float32))

    assert sent(LEFT, LEFT).tolist() == [0.0, 0.0, 1.0]
    assert sent(STOP, LEFT).tolist() == [0.0, 1.0, 0.0]  # the gripper's numbers are the same
    assert sent(STOP, GO) is None
    picker.safe()
    assert picker.actuation.prev_action().tolist() == [0.0, 1.0, 0.0]  # what is nearest: it stops
    fresh = driven(BASE % "", GRIPPER % "")
    assert fresh.actuation.prev_action().tolist() == [0.0, 1.0, 0.0]


def test_numbers_and_not_indices_tell_whether_the_robot_is_told_to_move(picker):
    told = [
        (picker.act(index), picker.actuation.moving(0.02))[1]
        for index in (GO, STOP, STOP, LEFT, STOP)
    ]
    assert told == [True, True, False, True, False]  # at first STOP the gripper moves


@pytest.mark.ros
def test_each_channel_is_sent_the_numbers_of_its_own_choice(picker):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    command, held = picker.actuation.safe(0, urgent=True)
    sent = dict(picker.actuation.commands.encode(command, stamp_ns=1, frame_id="base", held=held))
    assert (sent[0].linear.x, sent[0].angular.z) == (0.0, 0.0)
    np.testing.assert_allclose(sent[1].data, [0.06])


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_rate": (1.0,)}, "expected no max_rate where the action is a choice, got"),
        ({"max_jerk": (1.0,)}, "expected no max_jerk"),
        ({"most": (1.0,)}, "expected no max_command"),
        ({"safe": (0.0, 0.0)}, r"got the posture \[0.0, 0.0\]: no choice leads there slowly"),
    ],
)
def test_limits_and_postures_that_cannot_hold_of_a_choice_are_refused(fields, said):
    rows = {"go": (0.5, 0.0), "stop": (0.0, 0.0)}
    twist = CommandChannel(COMMANDS["twist"](["linear.x", "angular.z"]), choices=rows, **fields)
    for channel in (twist, CommandChannel(COMMANDS["index"](), **fields)):
        with pytest.raises(SpecMismatch, match=said):
            CommandSet([channel]).check(ActionSpec.choices(2))


def test_choices_of_which_none_stops_are_refused_unless_all_are_positions():
    rows = {"go": (0.5,), "creep": (0.1,)}
    wheel = CommandChannel(COMMANDS["joint_velocity"](), choices=rows)
    with pytest.raises(SpecMismatch, match=r"expected one that stops, .* got \['go', 'creep'\]"):
        CommandSet([wheel]).check(ActionSpec.choices(2))
    arm = CommandChannel(COMMANDS["joint_position"](), safe="hold", choices=rows)
    CommandSet([arm]).check(ActionSpec.choices(2))


# -------------------------------------------------------------------------------------- the pilot


def test_a_pilot_stops_each_channel_and_records_only_what_a_choice_says(
    monkeypatch, tmp_path, policy_at
):
    file = file_of(BASE % "", GRIPPER % "")
    commands = commands_of_channels(file.actions, installed=False)
    monkeypatch.setattr(test_pilot, "commands_of_parameters", lambda given: commands)
    spec = choosing_spec().model_copy(update={"action": file.action_spec(0.04)})
    robot = test_pilot.Robot(policy_at(tmp_path / "policy", bias=[0, 0, 1], spec=spec)).adopt()

    def take_over(gripper: float) -> None:
        robot.interventions.takeover.on_command(1, np.array([gripper]), robot.now_ns)

    acted = robot.tick(0)
    assert (acted.command.tolist(), acted.action.tolist()) == ([LEFT, LEFT], [0.0, 0.0, 1.0])
    take_over(GO)
    mixed = robot.tick(1)
    assert (mixed.safe, mixed.command.tolist(), mixed.action) == ("takeover", [STOP, GO], None)
    assert robot.pilot.prev_action.tolist() == [0.0, 1.0, 0.0]
    take_over(LEFT)
    said = robot.tick(2)
    assert (said.command.tolist(), said.action.tolist()) == ([STOP, LEFT], [0.0, 1.0, 0.0])
    assert robot.recorder.skipped == {"takeover": 1}
    robot.interventions.emergency.on_service()
    assert robot.tick(3).command.tolist() == [STOP, LEFT]
