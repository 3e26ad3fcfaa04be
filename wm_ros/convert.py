"""Converts stamps and the reward's message; each sensor and each command converts its own.

Messages are handled by their fields and built by name: importing this needs no ROS.
"""

from __future__ import annotations

import importlib
from typing import Any

from wm_core.contract.errors import SpecMismatch
from wm_ros.experience import Signal

_SIGNAL_NAMES = ("reward", "is_first", "is_last", "is_terminal")
_NS = 1_000_000_000


def message_class(name: str) -> Any:
    """Find the class of the message ``name``, such as ``sensor_msgs/Image``."""
    package, kind = name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), kind)


def to_ns(time: Any) -> int:
    """Read the nanoseconds of a ``builtin_interfaces/Time``."""
    return int(time.sec) * _NS + int(time.nanosec)


def set_time(time: Any, stamp_ns: int) -> None:
    """Set a ``builtin_interfaces/Time`` to ``stamp_ns`` nanoseconds."""
    time.sec, time.nanosec = divmod(stamp_ns, _NS)


def set_header(header: Any, stamp_ns: int, frame_id: str = "") -> None:
    """Set stamp and frame of a ``std_msgs/Header``."""
    set_time(header.stamp, stamp_ns)
    header.frame_id = frame_id


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
