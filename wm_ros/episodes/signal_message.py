"""Reads and makes the message that carries the reward and the flags of one image."""

from __future__ import annotations

from typing import Any

from wm_core.contract.errors import SpecMismatch
from wm_ros.convert import message_class, set_header, to_ns
from wm_ros.episodes.experience import Signal

_SIGNAL_NAMES = ("reward", "is_first", "is_last", "is_terminal")


def to_signal(msg: Any) -> Signal:
    """Read the reward and the flags of one image, from a ``sensor_msgs/JointState``.

    Raises:
        SpecMismatch: where a name is missing or names and positions differ in number.
    """
    if len(msg.name) != len(msg.position):
        raise SpecMismatch(
            f"reward message: {len(msg.name)} names but {len(msg.position)} positions"
        )
    values = dict(zip(msg.name, msg.position, strict=True))
    missing = [name for name in _SIGNAL_NAMES if name not in values]
    if missing:
        raise SpecMismatch(f"reward message: expected the names {_SIGNAL_NAMES}, lacks {missing}")
    is_terminal = values["is_terminal"] > 0.5
    return Signal(
        stamp_ns=to_ns(msg.header.stamp),
        reward=float(values["reward"]),
        is_first=values["is_first"] > 0.5,
        is_last=is_terminal or values["is_last"] > 0.5,
        is_terminal=is_terminal,
        answered=values.get("answered", 1.0) > 0.5,
    )


def from_signal(signal: Signal) -> Any:
    """Make the message that ``to_signal`` reads."""
    msg = message_class("sensor_msgs/JointState")(name=[*_SIGNAL_NAMES, "answered"])
    set_header(msg.header, signal.stamp_ns)
    msg.position = [float(getattr(signal, name)) for name in msg.name]
    return msg
