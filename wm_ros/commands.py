"""Lists the messages that can carry a command to the robot, each a class.

A new message is a class and its row in ``COMMANDS``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_ros.convert import message_class, set_header, to_ns

TWIST_FIELDS = tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz")


class Command:
    """Describes one kind of command: its message, the actions it fits, how it is coded.

    Args:
        fields: of a twist, one per element of the command; other messages need none.
    """

    name: ClassVar[str]  #: value of the parameter ``command_type``
    message: ClassVar[str]  #: such as geometry_msgs/Twist
    topic: ClassVar[str]
    discrete: ClassVar[bool] = False  #: carries the index of a choice
    stamped: ClassVar[bool] = True  #: says which image it answers

    def __init__(self, fields: Sequence[str] = ()) -> None:
        self.fields = tuple(fields)

    @property
    def message_class(self) -> Any:
        return message_class(self.message)

    def check(self, size: int, *, discrete: bool, what: str) -> None:
        """Raise ``SpecMismatch`` where this command cannot carry an action.

        Args:
            size: number of elements of the action, or of its command where it is a choice.
            discrete: whether the action is one of several choices.
            what: whose action it is, for the error: such as ``the policy``.
        """
        if discrete != self.discrete:
            raise SpecMismatch(
                f"command_type is {self.name}, the action of {what} is "
                f"{'one of several choices' if discrete else 'continuous'}; "
                "'index' is for actions that are choices, and only for them"
            )

    def encode(
        self, command: np.ndarray, *, names: Sequence[str], stamp_ns: int, frame_id: str
    ) -> Any:
        """Make the message that carries ``command``.

        Args:
            command: (command_size,) physical units, or the index of a choice; empty, before a
                policy has said how many elements there are, stops the robot.
            names: of the elements of the action, or of the choices; may be empty.
            stamp_ns: stamp of the image that the command answers; 0 for none.
            frame_id: such as base_link.
        """
        msg = self.message_class()
        if self.stamped:
            set_header(msg.header, stamp_ns, frame_id)
        self.write(msg, [float(value) for value in command], names)
        return msg

    def decode(self, msg: Any, size: int) -> tuple[np.ndarray | None, int]:
        """Read (command (command_size,) in physical units or None for stop, stamp in ns or 0).

        Raises:
            SpecMismatch: for another number of elements than ``size``, or one that is not finite.
        """
        values, stamp_ns = self.read(msg), to_ns(msg.header.stamp) if self.stamped else 0
        if not values:
            return None, stamp_ns
        if len(values) != size or not all(math.isfinite(value) for value in values):
            raise SpecMismatch(f"command: expected {size} finite numbers, got {values}")
        return np.array(values, np.float32), stamp_ns

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        """Put the numbers of a command into a new message."""
        raise NotImplementedError

    def read(self, msg: Any) -> list[float]:
        """Read the numbers in a message; none at all means stop."""
        raise NotImplementedError


class Twist(Command):
    """Carries a velocity in m/s and rad/s, without a stamp; elements drive the named fields."""

    name, message, topic, stamped = "twist", "geometry_msgs/Twist", "cmd_vel", False

    def check(self, size: int, *, discrete: bool, what: str) -> None:
        super().check(size, discrete=discrete, what=what)
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

    def read(self, msg: Any) -> list[float]:
        twist = msg.twist if self.stamped else msg
        parts = (field.split(".") for field in self.fields)
        return [getattr(getattr(twist, part), axis) for part, axis in parts]


class TwistStamped(Twist):
    """Carries a velocity in m/s and rad/s with the stamp of the image that it answers."""

    name, message, stamped = "twist_stamped", "geometry_msgs/TwistStamped", True


class Joint(Command):
    """Carries efforts of named joints; an empty message stops them."""

    name, message, topic = "joint", "sensor_msgs/JointState", "joint_command"

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        msg.effort = values
        msg.name = [*names[: len(values)], *(f"joint_{i}" for i in range(len(names), len(values)))]

    def read(self, msg: Any) -> list[float]:
        return list(msg.effort)


class ChoiceIndex(Command):
    """Carries the index of a choice, with its name; an empty message stops the robot.

    It has a topic of its own, so that no joint takes an index for an effort.
    """

    name, message, topic = "index", "sensor_msgs/JointState", "choice"
    discrete = True

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        msg.position = values
        choices = [int(value) for value in values]
        msg.name = [names[i] if i < len(names) else f"choice_{i}" for i in choices]

    def read(self, msg: Any) -> list[float]:
        return list(msg.position)


#: what the parameter ``command_type`` may name
COMMANDS: dict[str, type[Command]] = {
    command.name: command for command in (TwistStamped, Twist, Joint, ChoiceIndex)
}
