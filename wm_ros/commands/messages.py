"""Lists the messages that can carry a command to the robot, each a class.

A new message is a class and its row in ``COMMANDS``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from wm_core.contract.errors import SpecMismatch
from wm_ros.commands.command import Command, Motion, in_order, joint_names
from wm_ros.convert import message_class

TWIST_FIELDS = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz")
ACKERMANN_FIELDS = ("speed", "steering_angle", "acceleration", "jerk", "steering_angle_velocity")


class Twist(Command):
    """Carries a velocity in m/s and rad/s, without a stamp; elements drive the named fields."""

    name, message, default_topic = "twist", "geometry_msgs/Twist", "cmd_vel"
    motion, stamped, has_empty, one_motion = "velocity", False, True, False

    def check(self, size: int, *, discrete: bool, what: str, units: Sequence[str] = ()) -> None:
        super().check(size, discrete=discrete, what=what, units=units)
        if size != len(self.fields):
            raise SpecMismatch(
                f"twist_fields names {len(self.fields)} elements, the action of {what} has "
                f"{size}; set twist_fields or command_type"
            )

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        twist = msg.twist if self.stamped else msg
        for field, value in zip(self.fields, values, strict=False):
            part, axis = field.split(".")
            setattr(getattr(twist, part), axis, value)

    def read(self, msg: Any, names: Sequence[str]) -> list[float]:
        twist = msg.twist if self.stamped else msg
        parts = (field.split(".") for field in self.fields)
        return [getattr(getattr(twist, part), axis) for part, axis in parts]


class TwistStamped(Twist):
    """Carries a velocity in m/s and rad/s with the stamp of the image that it answers."""

    name, message, stamped = "twist_stamped", "geometry_msgs/TwistStamped", True


class Joint(Command):
    """Carries efforts of named joints; an empty message stops them."""

    name, message, default_topic = "joint", "sensor_msgs/JointState", "joint_command"
    motion: ClassVar[Motion] = "effort"
    has_empty = True
    field: ClassVar[str] = "effort"  #: of the message: where the numbers stand

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        setattr(msg, self.field, values)
        msg.name = joint_names(values, names)

    def read(self, msg: Any, names: Sequence[str]) -> list[float]:
        return in_order(msg.name, getattr(msg, self.field), names)


class JointVelocity(Joint):
    """Carries velocities of named joints in rad/s or m/s; an empty message stops them."""

    name, motion, field = "joint_velocity", "velocity", "velocity"


class JointPosition(Joint):
    """Carries positions of named joints in rad or m."""

    name, motion, field, has_empty = "joint_position", "position", "position", False


class JointTrajectory(Command):
    """Carries positions of named joints as a trajectory of one point, reached in ``reach_s``.

    The header's stamp is zero, which means now: a controller takes a stamp for the time at which
    the trajectory starts, and drops one that lies in the past, as an image's does.
    """

    name, message = "joint_trajectory", "trajectory_msgs/JointTrajectory"
    default_topic, motion, stamped = "joint_trajectory", "position", False

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        msg.joint_names = joint_names(values, names)
        point = message_class("trajectory_msgs/JointTrajectoryPoint")(positions=values)
        point.time_from_start.sec = int(self.reach_s)
        point.time_from_start.nanosec = round((self.reach_s % 1.0) * 1e9)
        msg.points = [point]

    def read(self, msg: Any, names: Sequence[str]) -> list[float]:
        if not msg.points:
            return []
        return in_order(msg.joint_names, msg.points[-1].positions, names)


class MultiArray(Command):
    """Carries plain numbers, as ros2_control's forward controllers take them.

    The units of the policy's action tell what they are; without units they count as positions,
    to which no zero is ever sent as a stop.
    """

    name, message, default_topic = "multi_array", "std_msgs/Float64MultiArray", "commands"
    stamped = False

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        msg.data = values

    def read(self, msg: Any, names: Sequence[str]) -> list[float]:
        return list(msg.data)


class Ackermann(Command):
    """Carries speed in m/s and steering angle in rad, with the stamp of the image it answers."""

    name, message = "ackermann", "ackermann_msgs/AckermannDriveStamped"
    default_topic, motion, has_empty, one_motion = "ackermann_cmd", "velocity", True, False

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        for field, value in zip(self.fields, values, strict=False):
            setattr(msg.drive, field, value)

    def read(self, msg: Any, names: Sequence[str]) -> list[float]:
        return [getattr(msg.drive, field) for field in self.fields]


class ChoiceIndex(Command):
    """Carries the index of each choice, with its name; an empty message stops the robot.

    Several choices are as many numbers, in their order.  It has a topic of its own, so that no
    joint takes an index for an effort.
    """

    name, message, default_topic = "index", "sensor_msgs/JointState", "choice"
    motion, discrete, has_empty = "choice", True, True

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        msg.position = values
        choices = [begin + int(i) for begin, i in zip(self.begins, values, strict=False)]
        msg.name = [names[i] if i < len(names) else f"choice_{i}" for i in choices]

    def read(self, msg: Any, names: Sequence[str]) -> list[float]:
        return list(msg.position)


#: what the parameter ``command_type`` may name
COMMANDS: dict[str, type[Command]] = {
    command.name: command
    for command in (
        TwistStamped,
        Twist,
        Joint,
        JointPosition,
        JointVelocity,
        JointTrajectory,
        MultiArray,
        ChoiceIndex,
    )
}
