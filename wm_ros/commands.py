"""The messages that can carry a command to the robot: one class each, and the table of them.

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
    """One kind of command: which message carries it, what action it fits, how it is coded.

    Args:
        fields: fields of a twist that the elements of the command drive, one per element.
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
        """The class of the message."""
        return message_class(self.message)

    def check(self, size: int, *, discrete: bool, what: str) -> None:
        """Raise ``SpecMismatch`` where this command cannot carry such an action.

        Args:
            size: number of elements of the action, or of choices.
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
        """The message that carries ``command``.

        Args:
            command: (command_size,) physical units, or (1,) index of a choice; empty while no
                policy has said how many there are: stop.
            names: of the elements of the action, or of the choices; may be empty.
            stamp_ns: stamp of the image that the command answers; 0 for none.
            frame_id: such as base_link.
        """
        raise NotImplementedError

    def decode(self, msg: Any, size: int) -> tuple[np.ndarray | None, int]:
        """((command_size,) float32 in physical units or None for stop, stamp in ns or 0).

        Raises:
            SpecMismatch: for another number of elements than ``size``, or one that is not finite.
        """
        values, stamp_ns = self._read(msg)
        if values is None:
            return None, stamp_ns
        if len(values) != size or not all(math.isfinite(v) for v in values):
            raise SpecMismatch(f"command: expected {size} finite numbers, got {values}")
        return np.array(values, np.float32), stamp_ns

    def _read(self, msg: Any) -> tuple[list[float] | None, int]:
        """The numbers in a message (None: stop) and its stamp in ns."""
        raise NotImplementedError


class Twist(Command):
    """A velocity in m/s and rad/s, without a stamp; elements drive the named fields."""

    name, message, topic, stamped = "twist", "geometry_msgs/Twist", "cmd_vel", False

    def check(self, size: int, *, discrete: bool, what: str) -> None:
        super().check(size, discrete=discrete, what=what)
        if size != len(self.fields):
            raise SpecMismatch(
                f"twist_fields names {len(self.fields)} elements, the action of {what} has "
                f"{size}; set twist_fields or command_type"
            )

    def encode(
        self, command: np.ndarray, *, names: Sequence[str], stamp_ns: int, frame_id: str
    ) -> Any:
        msg = self.message_class()
        self._write(msg, command)
        return msg

    def _write(self, twist: Any, command: np.ndarray) -> None:
        """Put ``command`` (command_size,) into the fields of a twist; the others stay 0."""
        for field, value in zip(self.fields, command, strict=False):
            part, axis = field.split(".")
            setattr(getattr(twist, part), axis, float(value))

    def _read(self, msg: Any) -> tuple[list[float] | None, int]:
        parts = (field.split(".") for field in self.fields)
        return [getattr(getattr(msg, part), axis) for part, axis in parts], 0


class TwistStamped(Twist):
    """A velocity in m/s and rad/s with the stamp of the image that it answers."""

    name, message, stamped = "twist_stamped", "geometry_msgs/TwistStamped", True

    def encode(
        self, command: np.ndarray, *, names: Sequence[str], stamp_ns: int, frame_id: str
    ) -> Any:
        msg = self.message_class()
        self._write(msg.twist, command)
        set_header(msg.header, stamp_ns, frame_id)
        return msg

    def _read(self, msg: Any) -> tuple[list[float] | None, int]:
        return super()._read(msg.twist)[0], to_ns(msg.header.stamp)


class Joint(Command):
    """Efforts of named joints; an empty message stops them."""

    name, message, topic = "joint", "sensor_msgs/JointState", "joint_command"
    _numbers, _default_name = "effort", "joint"  # where the numbers stand; what has no name

    def encode(
        self, command: np.ndarray, *, names: Sequence[str], stamp_ns: int, frame_id: str
    ) -> Any:
        msg = self.message_class()
        setattr(msg, self._numbers, [float(v) for v in command])
        msg.name = [
            names[i] if i < len(names) else f"{self._default_name}_{i}"
            for i in self._name_numbers(command)
        ]
        set_header(msg.header, stamp_ns, frame_id)
        return msg

    def _name_numbers(self, command: np.ndarray) -> Sequence[int]:
        """Which of the names belong to the elements of ``command`` (command_size,)."""
        return range(len(command))

    def _read(self, msg: Any) -> tuple[list[float] | None, int]:
        return list(getattr(msg, self._numbers)) or None, to_ns(msg.header.stamp)


class Index(Joint):
    """The index of a choice, with its name; an empty message stops the robot.

    It has a topic of its own, so that no joint takes an index for an effort.
    """

    name, topic, discrete = "index", "choice", True
    _numbers, _default_name = "position", "choice"

    def _name_numbers(self, command: np.ndarray) -> Sequence[int]:
        return [int(v) for v in command]


#: what ``command_type`` may name
COMMANDS: dict[str, type[Command]] = {
    command.name: command for command in (TwistStamped, Twist, Joint, Index)
}
