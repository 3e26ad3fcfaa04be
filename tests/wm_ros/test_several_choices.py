"""Policies that make several choices at once: on the wire, when the robot stops, in the record."""

from __future__ import annotations

import itertools
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from tests.wm_ros.conftest import steps_in
from tests.wm_ros.test_actuation import Body
from tests.wm_ros.test_pilot import Robot
from tests.wm_ros.tiny_policy import choosing_spec
from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_core.contract.spec import ActionSpec
from wm_core.robot.channels import TwistChannel
from wm_ros.commands import COMMANDS, CommandChannel, CommandSet
from wm_ros.commands.from_file import commands_of_channels
from wm_ros.convert import to_ns
from wm_ros.settings import PilotSettings

NAMES = ("left", "stay", "right", "open", "shut")
ARM = ActionSpec.several_choices((3, 2), NAMES, noop=(1, 0))


def indexed(action=ARM, **fields):
    """The commands of a robot that takes indices, ready for a policy."""
    commands = CommandSet([CommandChannel(COMMANDS["index"](), **fields)])
    commands.check(action)
    commands.begin(action, 0.1)
    return commands


# ------------------------------------------------------------------------------------ messages


@pytest.mark.ros
def test_a_message_has_the_index_and_the_name_of_each_choice():
    for action, names in ((ARM, ["right", "shut"]), (ARM.model_copy(update={"names": ()}),
                                                     ["choice_2", "choice_4"])):  # fmt: skip
        commands = indexed(action)
        ((_, msg),) = commands.encode(np.array([2.0, 1.0]), stamp_ns=5, frame_id="base")
        assert (list(msg.position), list(msg.name)) == ([2.0, 1.0], names)
        assert commands.decode(0, msg).tolist() == [2.0, 1.0]


@pytest.mark.ros
@pytest.mark.parametrize("position", [[2.0], [3.0, 0.0], [0.0, 2.0], [0.5, 0.0], [-1.0, 0.0]])
def test_an_index_that_a_choice_does_not_have_is_refused(position):
    from sensor_msgs.msg import JointState

    with pytest.raises(SpecMismatch, match="command: expected"):
        indexed().decode(0, JointState(position=position))


@pytest.mark.ros
def test_a_robot_file_and_other_messages_refuse_several_choices_and_say_what_can():
    rows = {name: (0.1 * i, 0.0) for i, name in enumerate(NAMES)}
    base = TwistChannel(type="geometry_msgs/Twist", low=(-1.0,), high=(1.0,), choices=rows)
    with pytest.raises(SpecMismatch, match=r"choices of 3 and 2 at once.*command_type index"):
        commands_of_channels([base]).check(ARM)
    with pytest.raises(SpecMismatch, match="command_type is twist"):
        CommandSet([CommandChannel(COMMANDS["twist"](["linear.x"]))]).check(ARM)


# ------------------------------------------------------------------------- stopping and exploring


@pytest.mark.parametrize(
    ("safe", "later"), [("zero", [1.0, 0.0]), ("hold", [2.0, 1.0]), ("none", None)]
)
def test_they_stop_by_the_noop_of_each_or_by_the_last_ones(safe, later):
    body = Body(CommandChannel(COMMANDS["index"](), safe=safe), action=ARM)
    assert body.safe()[0] == ([1.0, 0.0] if safe == "zero" else None)
    body.actuation.sent(np.array([2.0, 1.0], np.float32), frozenset())
    assert body.safe()[0] == later
    if safe == "hold":
        assert body.safe(urgent=True)[0] == [1.0, 0.0]


def test_a_robot_moves_while_any_of_its_choices_is_not_the_one_that_stops():
    body = Body(CommandChannel(COMMANDS["index"]()), action=ARM)
    for command, moves in (([1, 0], False), ([1, 1], True), ([0, 0], True)):
        body.actuation.sent(np.array(command, np.float32), frozenset())
        assert body.actuation.moving(0.02) == moves


@pytest.fixture
def chooser(tmp_path, policy_at):
    """A folder with a policy that always chooses right and shut."""
    spec = choosing_spec().model_copy(update={"action": ARM})
    return policy_at(tmp_path / "chooser", bias=[0, 0, 1, 0, 1], spec=spec)


def test_a_pilot_sends_stops_and_explores_with_every_choice(chooser):
    settings = PilotSettings(exploration_noise=0.5, random_prefill=40, random_hold=4)
    robot = Robot(chooser, settings, command_type="index").adopt()
    decisions = [robot.tick(k) for k in range(300)]
    robot.recorder.close()
    sent = np.stack([d.action for d in decisions])
    np.testing.assert_array_equal([step.action for step in robot.steps], sent)
    assert ARM.is_chosen(sent).all()
    held = sent[:40].reshape(10, 4, 5)
    assert (held == held[:, :1]).all()
    pairs = (sent[:, :3, None] * sent[:, None, 3:]).sum(0)
    assert pairs.min() > 5
    assert pairs[2, 1] == pairs.max()
    commands = np.stack([d.command for d in decisions])
    np.testing.assert_array_equal(commands, [ARM.to_physical(row) for row in sent])
    stopped = robot.tick(300, fresh=False, age_s=1.0)
    assert (stopped.safe, stopped.command.tolist()) == ("no_frame", [1.0, 0.0])


# ------------------------------------------------------------------------------------- tasks


@pytest.mark.ros
@pytest.mark.parametrize(
    ("space", "command", "element"),
    [
        (spaces.Discrete(4, start=10), [3], 13),
        (spaces.MultiDiscrete([3, 1, 2], start=[10, 7, 5]), [2, 1], [12, 7, 6]),
        (spaces.MultiDiscrete([[3, 2], [2, 2]]), [2, 1, 0, 1], [[2, 1], [0, 1]]),
        (spaces.MultiBinary(3), [1, 0, 9], [1, 0, 1]),
        (spaces.Box(-1.0, 2.0, (1, 2)), [0.5, 5.0], [[0.5, 2.0]]),
        (spaces.Box(0, 9, (2,), np.int32), [0.4, 8.9], [0, 9]),
    ],
    ids=str,
)
def test_a_command_becomes_an_element_of_the_task_s_space(space, command, element):
    from wm_ros.simulated.actions import TaskAction

    takes = TaskAction(space, {}, "mine")
    assert takes.low.shape == takes.high.shape == takes.home.shape == (len(command),)
    got = takes.element(np.array(command, np.float32))
    assert space.contains(got)
    np.testing.assert_array_equal(got, np.array(element, np.asarray(got).dtype))
    assert space.contains(takes.element(takes.home))


@pytest.mark.ros
@pytest.mark.parametrize(
    "space", [spaces.Text(3), spaces.MultiDiscrete([1, 1]), spaces.Tuple([spaces.Discrete(2)])]
)
def test_a_space_that_a_robot_cannot_be_is_named(space):
    from wm_ros.simulated.actions import TaskAction

    with pytest.raises(SettingsError, match="task 'mine'"):
        TaskAction(space, {}, "mine")


@pytest.mark.ros
def test_each_reward_is_what_was_chosen_before_it(
    processes, watcher, report_of, tmp_path, policy_at, monkeypatch
):
    from sensor_msgs.msg import JointState

    monkeypatch.syspath_prepend(Path(__file__).parent)  # one name, so that it registers once
    assert gymnasium.make("counting_task:Levers-v0").action_space.shape == (3,)
    spec = choosing_spec().model_copy(update={"action": ARM})
    policy_at(tmp_path / "policy", spread=1.0, spec=spec)
    state, chosen = tmp_path / "state", watcher.listen(JointState, "choice")
    rewards = watcher.listen(JointState, "reward")  # of every frame, with its stamp
    params = {"policy_dir": str(tmp_path / "policy"), "state_dir": str(state)}
    task = {"task": "counting_task:Levers-v0", "command_type": "index"}
    processes.start("sim_node", task)
    processes.start("policy_node", {"command_type": "index", "exploration": "sample", **params})
    watcher.until(
        lambda: chosen and report_of(state / "status.json").get("steps_recorded", 0) >= 40,
        "40 steps",
    )
    assert processes.stop("policy_node") == 0
    watcher.until(
        lambda: chosen[-1].header.stamp not in [m.header.stamp for m in rewards],
        "the last command, which answers no frame",
    )
    assert processes.stop("sim_node") == 0
    steps = steps_in(state / "spool")
    assert ARM.is_chosen(np.stack([step.action for step in steps])).all()
    for before, step in itertools.pairwise(steps):
        if not step.is_first:
            turn, grip = ARM.to_physical(before.action)
            assert step.reward == 2 * turn + grip
    assert len({step.action.tobytes() for step in steps}) == 6
    recorded = {step.stamp_ns: ARM.to_physical(step.action).tolist() for step in steps}
    pairs = [(m, recorded.get(to_ns(m.header.stamp))) for m in chosen]
    assert all(list(m.position) == sent for m, sent in pairs if sent is not None)
    assert list(chosen[-1].position) == [1.0, 0.0]  # the choices that stop
