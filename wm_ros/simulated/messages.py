"""Makes the messages that a robot file describes, from what a simulated robot observes.

The inverse of ``wm_ros.sensors``: numbers become fields of a message, an image its pixels.  Parts
on one topic share one message.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wm_core.robot.parts import (
    FieldsPart,
    ImagePart,
    ImuPart,
    JointsPart,
    LaserScanPart,
    NumbersPart,
    OdometryPart,
    PosePart,
    RangePart,
    SensorPart,
    TwistPart,
)
from wm_ros.convert import message_class, set_header

_TURNS = ("roll", "pitch", "yaw")
_GRAVITY = ("gravity.x", "gravity.y", "gravity.z")


def _set(msg: Any, path: str, value: float) -> None:
    *parents, last = path.split(".")
    for name in parents:
        msg = getattr(msg, name)
    setattr(msg, last, float(value))


def _fill_joints(msg: Any, part: JointsPart, values: Sequence[float]) -> None:
    new = [joint for joint in part.joints if joint not in msg.name]
    msg.name = [*msg.name, *new]
    for i, field in enumerate(part.fields):
        known = [*getattr(msg, field)]
        known += [0.0] * (len(msg.name) - len(known))
        for joint, value in zip(part.joints, values[i * len(part.joints) :], strict=False):
            known[msg.name.index(joint)] = float(value)
        setattr(msg, field, known)


def _fill_fields(msg: Any, part: FieldsPart, values: Sequence[float]) -> None:
    found = dict(zip(part.fields, values, strict=True))
    turned = {name: found.pop(name) for name in (*_TURNS, *_GRAVITY) if name in found}
    for name, value in found.items():
        _set(msg, _path_of(part, name), value)
    if turned:
        quaternion = _from_gravity(turned) if _GRAVITY[2] in turned else _from_turns(turned)
        for axis, value in zip("xyzw", quaternion, strict=True):
            _set(msg, f"{_orientation_of(part)}.{axis}", value)


def _path_of(part: FieldsPart, name: str) -> str:
    """Say where in the message of ``part`` a number stands."""
    if isinstance(part, ImuPart):
        return name
    if isinstance(part, TwistPart):
        return name if part.type == "geometry_msgs/Twist" else f"twist.{name}"
    if isinstance(part, OdometryPart) and "." in name:
        return f"twist.twist.{name}"
    if name in ("x", "y", "z"):
        return f"{_pose_of(part)}.position.{name}"
    return f"{_orientation_of(part)}.{name[1:]}"  # qx .. qw


def _pose_of(part: FieldsPart) -> str:
    return "pose.pose" if isinstance(part, OdometryPart) else "pose"


def _orientation_of(part: FieldsPart) -> str:
    return "orientation" if isinstance(part, ImuPart) else f"{_pose_of(part)}.orientation"


def _from_turns(turns: Mapping[str, float]) -> tuple[float, float, float, float]:
    """Make the quaternion (x, y, z, w) of roll, pitch and yaw in rad; 0 for those not given."""
    (sr, cr), (sp, cp), (sy, cy) = (
        (math.sin(turns.get(name, 0.0) / 2), math.cos(turns.get(name, 0.0) / 2)) for name in _TURNS
    )
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def _from_gravity(found: Mapping[str, float]) -> tuple[float, float, float, float]:
    """Make a quaternion (x, y, z, w) of a body in whose frame gravity has this direction."""
    gx, gy, gz = (found.get(name, 0.0) for name in _GRAVITY)
    norm = math.sqrt(gx * gx + gy * gy + gz * gz) or 1.0
    gx, gy, gz = gx / norm, gy / norm, gz / norm
    # The shortest turn that takes (gx, gy, gz) to (0, 0, -1).
    x, y, w = -gy, gx, 1.0 - gz
    length = math.sqrt(x * x + y * y + w * w)
    if length < 1e-6:  # upside down: half a turn about x
        return 1.0, 0.0, 0.0, 0.0
    return x / length, y / length, 0.0, w / length


def _fill_range(msg: Any, part: RangePart, values: Sequence[float]) -> None:
    msg.range, msg.min_range, msg.max_range = float(values[0]), 0.0, part.max_m


def _fill_scan(msg: Any, part: LaserScanPart, values: Sequence[float]) -> None:
    first = -math.pi if part.from_rad is None else part.from_rad
    last = math.pi if part.to_rad is None else part.to_rad
    msg.angle_increment = (last - first) / part.beams
    msg.angle_min = first + msg.angle_increment / 2
    msg.angle_max = msg.angle_min + (part.beams - 1) * msg.angle_increment
    msg.range_max, msg.ranges = part.max_m, [float(value) for value in values]


def _fill_numbers(msg: Any, part: NumbersPart, values: Sequence[float]) -> None:
    msg.data = [float(value) for value in values]


_FILLS: dict[type[SensorPart], Callable[..., None]] = {
    JointsPart: _fill_joints,
    ImuPart: _fill_fields,
    OdometryPart: _fill_fields,
    PosePart: _fill_fields,
    TwistPart: _fill_fields,
    RangePart: _fill_range,
    LaserScanPart: _fill_scan,
    NumbersPart: _fill_numbers,
}


def fill(msg: Any, part: SensorPart, values: np.ndarray) -> None:
    """Write what ``part`` reads into ``msg``.

    Args:
        msg: new, or filled by another part on the same topic.
        part: of a robot file; not an image.
        values: (n,) as the policy gets them: scaled and shifted.
    """
    raw = (np.asarray(values, np.float64) - part.offset) / part.scale  # type: ignore[attr-defined]
    _FILLS[type(part)](msg, part, raw.tolist())


def image_message(part: ImagePart, pixels: np.ndarray, stamp_ns: int, frame_id: str) -> Any:
    """Make the message of a camera.

    Args:
        part: of a robot file.
        pixels: (H, W, 3) or (H, W, 1) uint8; depth: (H, W, 1) uint16 in millimetres.
        stamp_ns: when it was taken.
        frame_id: of the camera.
    """
    msg = message_class(part.type)()
    set_header(msg.header, stamp_ns, frame_id)
    height, width, channels = pixels.shape
    if part.type == "sensor_msgs/CompressedImage":
        msg.format, data = "png", _png(pixels)
    else:
        encoding = "16UC1" if pixels.dtype == np.uint16 else ("mono8", "rgb8")[channels == 3]
        msg.height, msg.width, msg.encoding = height, width, encoding
        msg.step = width * channels * pixels.itemsize
        data = np.ascontiguousarray(pixels).tobytes()
    msg.data.frombytes(data)
    return msg


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, "png")
    return buffer.getvalue()


def vector_messages(
    parts: Sequence[SensorPart], vector: np.ndarray, messages: dict[str, Any]
) -> None:
    """Write one vector into the messages of its parts, by topic.

    A part with several topics spreads its joints over them, as several publishers do.

    Args:
        parts: of one input of a robot file.
        vector: (n,) as the policy gets it, without the parts that are heard on no topic.
        messages: by topic; those that are missing are added.
    """
    start = 0
    for part in parts:
        if not part.topics:
            continue
        values, start = vector[start : start + part.size], start + part.size
        for topic, own, numbers in _by_topic(part, values):
            if topic not in messages:
                messages[topic] = message_class(own.type)()
            fill(messages[topic], own, numbers)


def _by_topic(part: SensorPart, values: np.ndarray) -> list[tuple[str, SensorPart, np.ndarray]]:
    if not isinstance(part, JointsPart) or len(part.topics) == 1:
        return [(topic, part, values) for topic in part.topics]
    table = np.reshape(values, (len(part.fields), len(part.joints)))
    scale, offset = (np.reshape(v, table.shape) for v in (part.scale, part.offset))
    found: list[tuple[str, SensorPart, np.ndarray]] = []
    for i, topic in enumerate(part.topics):
        own = slice(i, None, len(part.topics))
        if part.joints[own]:
            kept = {
                "joints": part.joints[own],
                "scale": tuple(scale[:, own].reshape(-1).tolist()),
                "offset": tuple(offset[:, own].reshape(-1).tolist()),
            }
            found.append((topic, part.model_copy(update=kept), table[:, own].reshape(-1)))
    return found
