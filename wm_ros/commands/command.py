"""Defines what every message that carries a command has in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_ros.convert import message_class, set_header, to_ns

Motion = Literal["velocity", "position", "effort", "choice"]

#: what a unit says about the motion that a number commands
MOTIONS: dict[str, Motion] = {
    **dict.fromkeys(("m/s", "rad/s", "deg/s"), "velocity"),
    **dict.fromkeys(("m", "rad", "deg"), "position"),
    **dict.fromkeys(("N", "N m", "N*m", "Nm"), "effort"),
}


class Command:
    """Describes one kind of command: its message, the actions it fits, how it is coded.

    Args:
        fields: of a twist, one per element of the command; other messages need none.
        topic: where it is sent; that of its kind if left out.
        names: of the elements, such as joints; those of the policy's action if left out.
        reach_s: of a trajectory: seconds until its point is to be reached; 0: one period.
    """

    name: ClassVar[str]  #: value of the parameter ``command_type``
    message: ClassVar[str]  #: such as geometry_msgs/Twist
    default_topic: ClassVar[str]
    motion: ClassVar[Motion | None] = None  #: what a number commands; None: its unit tells
    discrete: ClassVar[bool] = False  #: carries the index of a choice
    stamped: ClassVar[bool] = True  #: says which image it answers
    one_motion: ClassVar[bool] = True  #: every number commands a ``motion``, so units must fit
    has_empty: ClassVar[bool] = False  #: a message without numbers stops the robot

    def __init__(
        self,
        fields: Sequence[str] = (),
        *,
        topic: str = "",
        names: Sequence[str] = (),
        reach_s: float = 0.0,
    ) -> None:
        self.fields, self.names = tuple(fields), tuple(names)
        self.topic, self.reach_s = topic or self.default_topic, reach_s
        self.begins: tuple[int, ...] = (0,)  #: of choices: where in the names those of each begin

    @property
    def message_class(self) -> Any:
        return message_class(self.message)

    def check(self, size: int, *, discrete: bool, what: str, units: Sequence[str] = ()) -> None:
        """Raise ``SpecMismatch`` where this command cannot carry an action.

        Args:
            size: number of elements of the action, or of its command where it is a choice.
            discrete: whether the action is made of choices.
            what: whose action it is, for the error: such as ``the policy``.
            units: of the elements, where they are known.
        """
        if discrete != self.discrete:
            raise SpecMismatch(
                f"command_type is {self.name}, the action of {what} is "
                f"{'one of several choices' if discrete else 'continuous'}; "
                "'index' is for actions that are choices, and only for them"
            )
        for unit in units if self.motion and not discrete else ():
            meant = MOTIONS.get(unit)
            if meant not in (None, self.motion) and self.one_motion:
                article = "an" if meant == "effort" else "a"
                raise SpecMismatch(
                    f"command_type is {self.name}, which carries {self.motion}s, but the action "
                    f"of {what} is in {unit!r}, {article} {meant}; {_ADVICE[meant or 'choice']}"
                )

    def encode(
        self, command: np.ndarray, *, names: Sequence[str], stamp_ns: int, frame_id: str
    ) -> Any:
        """Make the message that carries ``command``.

        Args:
            command: (command_size,) physical units, or the index of each choice; empty, before a
                policy has said how many elements there are, stops the robot.
            names: of the elements of the action, or of the choices; may be empty.
            stamp_ns: stamp of the image that the command answers; 0 for none.
            frame_id: such as base_link.
        """
        msg = self.message_class()
        if self.stamped:
            set_header(msg.header, stamp_ns, frame_id)
        self.write(msg, [float(value) for value in command], self.names or names)
        return msg

    def decode(
        self, msg: Any, size: int, names: Sequence[str] = ()
    ) -> tuple[np.ndarray | None, int]:
        """Read (command (command_size,) in physical units or None for stop, stamp in ns or 0).

        Args:
            msg: the message.
            size: number of elements.
            names: of the elements, by which a message with names is brought into order.

        Raises:
            SpecMismatch: for another number of elements than ``size``, or one that is not finite.
        """
        values = self.read(msg, self.names or names)
        stamp_ns = to_ns(msg.header.stamp) if self.stamped else 0
        if not values:
            return None, stamp_ns
        if len(values) != size or not all(math.isfinite(value) for value in values):
            raise SpecMismatch(f"command: expected {size} finite numbers, got {values}")
        return np.array(values, np.float32), stamp_ns

    def write(self, msg: Any, values: list[float], names: Sequence[str]) -> None:
        """Put the numbers of a command into a new message."""
        raise NotImplementedError

    def read(self, msg: Any, names: Sequence[str]) -> list[float]:
        """Read the numbers in a message in the order of ``names``; none at all means stop."""
        raise NotImplementedError


_ADVICE: dict[Motion, str] = {
    "position": "use joint_position, joint_trajectory or multi_array",
    "velocity": "use joint_velocity, a twist or multi_array",
    "effort": "use joint or multi_array",
    "choice": "use index",
}


def joint_names(values: Sequence[float], names: Sequence[str]) -> list[str]:
    """Name each of ``values``: by ``names`` as far as they go, then by its number."""
    return [*names[: len(values)], *(f"joint_{i}" for i in range(len(names), len(values)))]


def in_order(
    msg_names: Sequence[str], values: Sequence[float], names: Sequence[str]
) -> list[float]:
    """Bring the ``values`` of a message into the order of ``names``.

    Without names on either side they stay as they are.

    Raises:
        SpecMismatch: for a name that is missing, doubled or unknown.
    """
    if not names or not msg_names or list(msg_names) == list(names):
        return list(values)
    if sorted(msg_names) != sorted(names) or len(values) != len(names):
        raise SpecMismatch(
            f"command: expected the names {list(names)}, each once with its number, got "
            f"{list(msg_names)} and {len(values)} numbers"
        )
    by_name = dict(zip(msg_names, values, strict=True))
    return [by_name[name] for name in names]
