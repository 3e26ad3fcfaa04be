"""Converts stamps and headers; each sensor and each command converts its own message.

Messages are handled by their fields and built by name: importing this needs no ROS.
"""

from __future__ import annotations

import importlib
from typing import Any

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
