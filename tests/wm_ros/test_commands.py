"""Every kind of channel becomes its message and comes back; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec
from wm_core.robot.channels import (
    GripperChannel,
    JointStateChannel,
    MultiArrayChannel,
    TwistChannel,
)
from wm_ros.commands import COMMANDS, CommandChannel, CommandSet
from wm_ros.commands.from_file import commands_of_channels

JOINTS = ("shoulder", "elbow")
RANGE = {"low": (-2.0,), "high": (2.0,)}
ARM = ActionSpec(low=(-2.0, -2.0), high=(2.0, 2.0), names=JOINTS, units=("rad", "rad"))


def set_of(kind: str, **fields) -> CommandSet:
    twist_fields = ("linear.x", "angular.z")  # given to every kind, as the node does
    return CommandSet([CommandChannel(COMMANDS[kind](twist_fields), **fields)])


def begun(commands: CommandSet, action: ActionSpec = ARM) -> CommandSet:
    commands.check(action)
    commands.begin(action, 0.05)
    return commands


def sent(commands: CommandSet, values, **more):
    command = np.array(values, np.float32)
    return dict(commands.encode(command, stamp_ns=77, frame_id="base_link", **more))


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("safe", ["zero"])
@pytest.mark.parametrize("kind", ["joint_position", "joint_trajectory", "multi_array"])
def test_positions_take_no_zero_as_a_stop(kind, safe):
    with pytest.raises(SpecMismatch, match="zeros would move the robot; set safe_action to hold"):
        set_of(kind, safe=safe).check(ARM)


def test_zero_is_taken_as_a_posture_that_was_stated():
    begun(set_of("joint_position", safe=(0.0,), max_rate=(1.0,)))


def test_bare_numbers_without_a_unit_count_as_positions_and_velocities_may_be_zero():
    nameless = ARM.model_copy(update={"units": ()})
    with pytest.raises(SpecMismatch, match="have no unit that says otherwise"):
        set_of("multi_array").check(nameless)
    begun(set_of("multi_array"), ARM.model_copy(update={"units": ("rad/s", "m/s")}))
    begun(set_of("multi_array", mode="velocity"), nameless)


@pytest.mark.parametrize(
    ("kind", "unit", "said"),
    [
        ("joint", "rad", "a position; use joint_position, joint_trajectory or multi_array"),
        ("joint", "m", "a position; use joint_position"),
        ("joint", "rad/s", "a velocity; use joint_velocity"),
        ("joint_position", "rad/s", "a velocity; use joint_velocity"),
        ("joint_velocity", "N m", "an effort; use joint"),
    ],
)
def test_a_unit_of_another_kind_than_the_command_is_refused_with_the_one_to_use(kind, unit, said):
    action = ARM.model_copy(update={"units": (unit, unit)})
    with pytest.raises(SpecMismatch, match=said):
        set_of(kind, safe="hold").check(action)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"safe": "zero"}, r"the safe action \[0.0\] is outside of its range \[0.2.*hold or none"),
        ({"safe": (0.9,)}, r"outside of its range"),
        ({"safe": (0.3, 0.3)}, "safe_posture has 2 numbers, expected 1"),
        ({"safe": "hold", "low": (1.0,), "high": (2.0,)}, "do not meet"),
        ({"safe": "hold", "max_rate": (1.0, 2.0)}, "max_rate has 2 numbers, expected 1"),
        ({"safe": "hold", "units": ("rad/s",)}, r"expected the units \['rad/s'\]"),
    ],
)
def test_a_safe_action_outside_of_the_range_and_limits_that_do_not_fit_are_refused(fields, said):
    forward_only = ActionSpec(low=(0.2,), high=(0.8,), units=("m/s",))
    channel = CommandChannel(COMMANDS["twist"](["linear.x"]), **fields)
    with pytest.raises(SpecMismatch, match=said):
        CommandSet([channel]).check(forward_only)


def test_a_posture_of_positions_needs_a_rate_at_which_to_go_there():
    with pytest.raises(SpecMismatch, match="a posture needs max_rate"):
        set_of("joint_position", safe=(0.0, 1.0)).check(ARM)


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_joints_in_another_order_than_the_policys_are_refused():
    file = JointStateChannel(
        type="sensor_msgs/JointState", mode="position", joints=("elbow", "shoulder"), **RANGE
    )
    with pytest.raises(SpecMismatch, match="bring them into one order"):
        commands_of_channels([file]).check(ARM)


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_channels_that_do_not_add_up_to_the_action_are_refused():
    base = TwistChannel(type="geometry_msgs/Twist", low=(-1.0,), high=(1.0,))
    arm = JointStateChannel(type="sensor_msgs/JointState", mode="position", joints=JOINTS, **RANGE)
    with pytest.raises(SpecMismatch, match=r"carry 4 elements .* the policy has 2"):
        commands_of_channels([base, arm]).check(ARM)


# ---------------------------------------------------------------------------------- messages


@pytest.fixture
def ros_messages():
    """Skips where there are no messages of ROS."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
@pytest.mark.parametrize(
    ("kind", "field"), [("joint_position", "position"), ("joint_velocity", "velocity")]
)
def test_joints_are_commanded_in_the_field_of_their_kind(kind, field):
    units = ("rad", "rad") if field == "position" else ("rad/s", "rad/s")
    commands = begun(set_of(kind, safe="hold"), ARM.model_copy(update={"units": units}))
    (msg,) = sent(commands, [0.5, -1.0]).values()
    fields = {name: list(getattr(msg, name)) for name in ("position", "velocity", "effort")}
    assert fields == {**{key: [] for key in fields}, field: [0.5, -1.0]}
    assert list(msg.name) == list(JOINTS)
    assert msg.header.stamp.nanosec == 77
    assert commands.decode(0, msg).tolist() == [0.5, -1.0]


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_a_trajectory_has_one_point_that_is_reached_within_a_period():
    pytest.importorskip("trajectory_msgs", reason="needs trajectory_msgs")
    (msg,) = sent(begun(set_of("joint_trajectory", safe="hold")), [0.5, -1.0]).values()
    assert list(msg.joint_names) == list(JOINTS)
    (point,) = msg.points
    assert list(point.positions) == [0.5, -1.0]
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 50_000_000)
    assert msg.header.stamp.sec == msg.header.stamp.nanosec == 0  # now, whatever the clock


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_a_takeover_in_another_order_of_joints_is_read_by_name():
    # the parameters name no joints: the policy's names count
    commands = begun(set_of("joint_position", safe="hold"))
    (msg,) = sent(commands, [0.5, -1.0]).values()
    msg.name, msg.position = list(reversed(msg.name)), list(reversed(msg.position))
    assert commands.decode(0, msg).tolist() == [0.5, -1.0]
    msg.name = ["elbow", "wrist"]
    with pytest.raises(SpecMismatch, match="expected the names"):
        commands.decode(0, msg)


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_several_channels_share_out_the_command_and_a_held_one_gets_nothing():
    commands = commands_of_channels(
        [
            TwistChannel(
                type="geometry_msgs/TwistStamped", low=(-1.0,), high=(1.0,), frame="torso"
            ),
            JointStateChannel(
                type="sensor_msgs/JointState", mode="position", joints=JOINTS, **RANGE
            ),
            MultiArrayChannel(
                type="std_msgs/Float64MultiArray",
                topic="wheels/commands",
                mode="velocity",
                names=("left", "right"),
                **RANGE,
            ),
            GripperChannel(type="gripper", topic="hand/commands", open=0.08, closed=0.0),
        ]
    )
    low = (-1.0,) * 2 + (-2.0,) * 4 + (0.0,)
    high = (1.0,) * 2 + (2.0,) * 4 + (0.08,)
    begun(commands, ActionSpec(low=low, high=high))
    found = sent(commands, [0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 0.04])
    assert (found[0].twist.linear.x, found[0].twist.angular.z) == (0.5, -0.5)
    assert found[0].header.frame_id == "torso"
    assert list(found[1].position) == [1.0, -1.0]
    assert list(found[2].data) == [2.0, -2.0]
    np.testing.assert_allclose(found[3].data, [0.04])
    assert sent(commands, np.zeros(7), held=frozenset({1, 3})).keys() == {0, 2}
    assert sent(commands, []).keys() == {0}  # before a policy: what stops without numbers
    topics = [channel.command.topic for channel in commands.channels]
    assert topics == ["cmd_vel", "joint_command", "wheels/commands", "hand/commands"]


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_a_choice_sends_the_row_of_every_channels_table():
    choices = {"stop": (0.0, 0.0), "go": (0.5, 0.0), "left": (0.2, 1.0)}
    base = TwistChannel(type="geometry_msgs/Twist", low=(-1.0,), high=(1.0,), choices=choices)
    action = ActionSpec.choices(3, tuple(choices))
    commands = begun(commands_of_channels([base]), action)
    (msg,) = sent(commands, [2.0]).values()
    assert (msg.linear.x, msg.angular.z) == (0.2, 1.0)
    assert commands.decode(0, msg).tolist() == [2.0]
    with pytest.raises(SpecMismatch, match="the robot's choices are"):
        commands.check(ActionSpec.choices(3, ("stop", "left", "go")))
    with pytest.raises(SpecMismatch, match="2 elements, none of them a choice"):
        commands.check(ARM)


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
@pytest.mark.parametrize(
    ("asked", "want"),
    [
        ((0.5, 0.0), "go"),
        ((0.3, 0.0), "stop"),  # go is nearest, and faster than asked
        ((-0.6, 0.0), "stop"),
        ((0.6, 0.3), "go"),
        ((0.3, 1.1), "left"),
        ((0.3, -1.1), "stop"),
        ((0.0, 0.0), "stop"),
    ],
)
def test_a_person_who_takes_over_never_gets_a_choice_that_is_faster_than_asked(asked, want):
    choices = {"stop": (0.0, 0.0), "go": (0.5, 0.0), "left": (0.2, 1.0)}
    base = TwistChannel(type="geometry_msgs/Twist", low=(-1.0,), high=(1.0,), choices=choices)
    commands = begun(commands_of_channels([base]), ActionSpec.choices(3, tuple(choices)))
    msg = base_message(*asked)
    assert commands.decode(0, msg).tolist() == [[*choices].index(want)]


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_where_every_choice_moves_more_than_asked_a_takeover_stops_but_for_positions():
    rows = {"creep": (0.1,), "stop": (0.0,), "go": (0.5,)}
    names = tuple(rows)
    wheel = MultiArrayChannel(
        type="std_msgs/Float64MultiArray",
        topic="w",
        names=("x",),
        mode="velocity",
        choices=rows,
        low=(-1.0,),
        high=(1.0,),
    )
    commands = begun(commands_of_channels([wheel]), ActionSpec.choices(3, names))
    message = commands.channels[0].command.message_class
    assert commands.decode(0, message(data=[0.09])).tolist() == [1]
    assert commands.decode(0, message(data=[0.1])).tolist() == [0]
    arm = wheel.model_copy(update={"mode": "position", "safe": "hold"})
    commands = begun(commands_of_channels([arm]), ActionSpec.choices(3, names))
    assert commands.decode(0, message(data=[0.4])).tolist() == [2]


def base_message(x: float, turn: float):
    from geometry_msgs.msg import Twist

    msg = Twist()
    msg.linear.x, msg.angular.z = x, turn
    return msg


@pytest.mark.ros
@pytest.mark.usefixtures("ros_messages")
def test_a_message_that_is_not_installed_is_named_with_its_package():
    from wm_core.contract.errors import SettingsError
    from wm_core.robot.channels import AckermannChannel

    try:
        import ackermann_msgs  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("ackermann_msgs is installed")
    car = AckermannChannel(type="ackermann_msgs/AckermannDriveStamped", low=(-1.0,), high=(1.0,))
    with pytest.raises(SettingsError, match=r"install the package .*-ackermann-msgs"):
        commands_of_channels([car])
