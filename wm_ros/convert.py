"""ROS messages to arrays and back, without cv_bridge.

A frame goes in and out as one copy of its bytes: assigning an array to ``msg.data`` would convert
it element by element, which costs 56 ms for a VGA image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistStamped
from sensor_msgs.msg import Image, JointState

from wm_core.contract.errors import SpecMismatch
from wm_ros.experience import Signal

CommandType = Literal["twist_stamped", "twist", "joint", "index"]

_RGB, _BGR = slice(0, 3), slice(2, None, -1)
#: encoding -> bytes of a pixel, colours that the network sees, which of the bytes they are
_ENCODINGS: dict[str, tuple[int, int, slice]] = {
    "rgb8": (3, 3, _RGB),
    "bgr8": (3, 3, _BGR),
    "rgba8": (4, 3, _RGB),
    "bgra8": (4, 3, _BGR),
    "mono8": (1, 1, slice(0, 1)),
}
_SIGNAL_NAMES = ("reward", "is_first", "is_last", "is_terminal")
_NS = 1_000_000_000


def to_ns(stamp: Time) -> int:
    """Nanoseconds of a stamp."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def to_time(stamp_ns: int) -> Time:
    """The stamp of ``stamp_ns`` nanoseconds."""
    return Time(sec=stamp_ns // _NS, nanosec=stamp_ns % _NS)


def to_frame(msg: Image, channels: int) -> np.ndarray:
    """The pixels of an image message, as a view of its bytes.

    Args:
        msg: rgb8, bgr8, rgba8, bgra8 or mono8; rows may be padded (``step``).  One byte per value,
            so ``is_bigendian`` changes nothing.
        channels: 3 for RGB, 1 for mono: what the policy wants.

    Returns:
        (H, W, channels) uint8.

    Raises:
        SpecMismatch: for another encoding, or bytes that do not fit height, width and step.
    """
    known = _ENCODINGS.get(msg.encoding)
    if known is None or known[1] != channels:
        fitting = [name for name, (_, colours, _) in _ENCODINGS.items() if colours == channels]
        raise SpecMismatch(
            f"camera: expected encoding {' or '.join(fitting)}, got {msg.encoding!r}"
        )
    depth, _, kept = known
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    if step < width * depth or len(msg.data) < height * step or not height * width:
        raise SpecMismatch(
            f"camera: expected at least {height} rows of {width * depth} bytes for "
            f"{width}x{height} {msg.encoding}, got step {step} and {len(msg.data)} bytes"
        )
    rows = np.frombuffer(msg.data, np.uint8, count=height * step).reshape(height, step)
    return rows[:, : width * depth].reshape(height, width, depth)[:, :, kept]


def to_image(frame: np.ndarray, stamp_ns: int, frame_id: str) -> Image:
    """An image message of ``frame`` (H, W, 3) RGB or (H, W, 1) uint8."""
    height, width, channels = frame.shape
    msg = Image(height=height, width=width, step=width * channels, is_bigendian=0)
    msg.header.stamp, msg.header.frame_id = to_time(stamp_ns), frame_id
    msg.encoding = "rgb8" if channels == 3 else "mono8"
    msg.data.frombytes(np.ascontiguousarray(frame, np.uint8).data)
    return msg


def to_signal(msg: JointState) -> Signal:
    """Reward and flags of one image.

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


def from_signal(signal: Signal) -> JointState:
    """The message of ``to_signal``."""
    msg = JointState(name=[*_SIGNAL_NAMES, "answered"])
    msg.header.stamp = to_time(signal.stamp_ns)
    msg.position = [
        float(v)
        for v in (
            signal.reward,
            signal.is_first,
            signal.is_last,
            signal.is_terminal,
            signal.answered,
        )
    ]
    return msg


def to_vector(msg: JointState, size: int, what: str) -> np.ndarray:
    """(size,) float32 of a joint state: its positions, with the velocities behind where they fit.

    Raises:
        SpecMismatch: where neither has ``size`` numbers.
    """
    positions, velocities = list(msg.position), list(msg.velocity)
    values = positions if len(positions) == size else positions + velocities
    if len(values) != size:
        raise SpecMismatch(
            f"{what}: expected {size} positions, or positions and velocities, "
            f"got {len(positions)} and {len(velocities)}"
        )
    return np.array(values, np.float32)


def from_vector(vector: np.ndarray, stamp_ns: int, names: Sequence[str]) -> JointState:
    """A joint state whose positions are ``vector`` (n,)."""
    msg = JointState(name=list(names), position=[float(v) for v in vector])
    msg.header.stamp = to_time(stamp_ns)
    return msg


def to_twist(command: np.ndarray, fields: Sequence[str]) -> Twist:
    """A twist in m/s and rad/s with ``command`` (A,) in the named fields, zeros elsewhere."""
    msg = Twist()
    for field, value in zip(fields, command, strict=True):
        part, axis = field.split(".")
        setattr(getattr(msg, part), axis, float(value))
    return msg


def to_command(
    kind: CommandType,
    command: np.ndarray,
    *,
    fields: Sequence[str],
    names: Sequence[str],
    stamp_ns: int,
    frame_id: str,
) -> Twist | TwistStamped | JointState:
    """The message that carries ``command``; its stamp is that of the image it answers.

    Args:
        kind: which message.
        command: (command_size,) physical units; empty stops a robot that listens to joints or
            to choices.
        fields: of a twist, one per element.
        names: of the joints, one per element, or of the choices.
        stamp_ns: of the image; 0 for none.
        frame_id: such as base_link.
    """
    if kind in ("joint", "index"):
        values = [float(v) for v in command]
        if kind == "joint":
            what, wanted = "joint", range(len(command))
            joints = JointState(effort=values)
        else:
            what, wanted = "choice", [int(v) for v in command]
            joints = JointState(position=values)
        joints.name = [names[i] if i < len(names) else f"{what}_{i}" for i in wanted]
        joints.header.stamp, joints.header.frame_id = to_time(stamp_ns), frame_id
        return joints
    twist = to_twist(command, fields[: len(command)])
    if kind == "twist":
        return twist
    stamped = TwistStamped(twist=twist)
    stamped.header.stamp, stamped.header.frame_id = to_time(stamp_ns), frame_id
    return stamped


def from_command(
    kind: CommandType,
    msg: Twist | TwistStamped | JointState,
    size: int,
    *,
    fields: Sequence[str],
) -> tuple[np.ndarray | None, int]:
    """What a command asks for: ((command_size,) float32 in physical units, stamp in ns or 0).

    None stands for an empty joint command or choice: stop.

    Raises:
        SpecMismatch: for another number of elements, or one that is not finite.
    """
    if isinstance(msg, JointState):
        values, stamp = list(msg.effort if kind == "joint" else msg.position), msg.header.stamp
        if not values:
            return None, to_ns(stamp)
    else:
        twist = msg.twist if isinstance(msg, TwistStamped) else msg
        stamp = msg.header.stamp if isinstance(msg, TwistStamped) else Time()
        values = []
        for field in fields:
            part, axis = field.split(".")
            values.append(getattr(getattr(twist, part), axis))
    if len(values) != size or not all(math.isfinite(v) for v in values):
        raise SpecMismatch(f"command: expected {size} finite numbers, got {values}")
    return np.array(values, np.float32), to_ns(stamp)


def command_topic(
    kind: CommandType,
) -> tuple[type[Twist] | type[TwistStamped] | type[JointState], str]:
    """The message class and the topic of a command type.

    Choices have a topic of their own, so that no joint takes an index for an effort.
    """
    topics = {
        "twist_stamped": (TwistStamped, "cmd_vel"),
        "twist": (Twist, "cmd_vel"),
        "joint": (JointState, "joint_command"),
        "index": (JointState, "choice"),
    }
    return topics[kind]
