"""Reads what moves: inertial sensors, odometry, poses and velocities, by the names of fields."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.robot.parts import FieldsPart, TwistPart
from wm_ros.sensors.source import Source

Reader = Callable[[Any], float]


def _at(path: str) -> Reader:
    """Read the number at a path of a message, such as pose.position.x."""
    names = path.split(".")

    def read(msg: Any) -> float:
        for name in names:
            msg = getattr(msg, name)
        return float(msg)

    return read


def _xyz(prefix: str, where: str) -> dict[str, Reader]:
    return {f"{prefix}{axis}": _at(f"{where}.{axis}") for axis in "xyz"}


def _twist(where: str) -> dict[str, Reader]:
    parts = ("linear", "angular")
    return {n: r for part in parts for n, r in _xyz(f"{part}.", f"{where}{part}").items()}


def _turned(path: str, of: Callable[[float, float, float, float], float]) -> Reader:
    """Read a number of the unit quaternion at a path."""
    at = [_at(f"{path}.{axis}") for axis in "xyzw"]

    def read(msg: Any) -> float:
        x, y, z, w = (read(msg) for read in at)
        norm = math.sqrt(x * x + y * y + z * z + w * w)
        if not norm > 1e-6:  # a NaN is seen here too
            raise SpecMismatch(
                f"expected an orientation in {path}, got the quaternion {(x, y, z, w)}"
            )
        return of(x / norm, y / norm, z / norm, w / norm)

    return read


def _yaw(x: float, y: float, z: float, w: float) -> float:
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def _roll(x: float, y: float, z: float, w: float) -> float:
    return math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))


def _pitch(x: float, y: float, z: float, w: float) -> float:
    return math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))


def _quaternion(prefix: str, where: str) -> dict[str, Reader]:
    return {
        f"{prefix}{axis}": _turned(where, lambda *q, i=i: q[i])  # type: ignore[misc]
        for i, axis in enumerate("xyzw")
    }


_IMU: Mapping[str, Reader] = {
    **_xyz("angular_velocity.", "angular_velocity"),
    **_xyz("linear_acceleration.", "linear_acceleration"),
    **_quaternion("orientation.", "orientation"),
    "gravity.x": _turned("orientation", lambda x, y, z, w: 2 * (w * y - x * z)),
    "gravity.y": _turned("orientation", lambda x, y, z, w: -2 * (y * z + w * x)),
    "gravity.z": _turned("orientation", lambda x, y, z, w: 2 * (x * x + y * y) - 1),
    "roll": _turned("orientation", _roll),
    "pitch": _turned("orientation", _pitch),
    "yaw": _turned("orientation", _yaw),
}
_ODOMETRY: Mapping[str, Reader] = {
    **_twist("twist.twist."),
    **_xyz("", "pose.pose.position"),
    **_quaternion("q", "pose.pose.orientation"),
    "yaw": _turned("pose.pose.orientation", _yaw),
}
_POSE: Mapping[str, Reader] = {
    **_xyz("", "pose.position"),
    **_quaternion("q", "pose.orientation"),
    "yaw": _turned("pose.orientation", _yaw),
}


class Fields(Source):
    """Hears a message of which the robot file names the numbers that are read."""

    readers: Mapping[str, Reader]  #: how each field that a part may name is read

    @property
    def fields(self) -> tuple[str, ...]:
        """Name the fields that are read, in their order."""
        assert isinstance(self.part, FieldsPart)
        return self.part.fields

    def decode(self, msg: Any, kind: Any) -> np.ndarray:
        try:
            return np.array([self.readers[field](msg) for field in self.fields])
        except SpecMismatch as error:
            raise SpecMismatch(f"{self.name}: {error}") from error


class Imu(Fields):
    """Hears an inertial sensor; ``gravity`` is the unit vector downwards in its frame."""

    message, default_topic = "sensor_msgs/Imu", "imu"
    readers = _IMU

    def decode(self, msg: Any, kind: Any) -> np.ndarray:
        for measured in ("angular_velocity", "linear_acceleration", "orientation"):
            told = {field.split(".")[0] for field in self.fields}
            turned = measured == "orientation" and told & {"gravity", "roll", "pitch", "yaw"}
            if (measured in told or turned) and getattr(msg, f"{measured}_covariance")[0] == -1.0:
                raise SpecMismatch(
                    f"{self.name}: expected {measured}, but the sensor says that it measures none "
                    "(its covariance is -1)"
                )
        return super().decode(msg, kind)


class Odometry(Fields):
    """Hears odometry: velocities in the robot's frame, pose in the odometry's."""

    message, default_topic = "nav_msgs/Odometry", "odom"
    readers = _ODOMETRY


class Pose(Fields):
    """Hears a pose, such as a goal."""

    message, default_topic = "geometry_msgs/PoseStamped", "goal_pose"
    readers = _POSE


class Velocity(Fields):
    """Hears a velocity, stamped or not, such as one that a person commands."""

    message, default_topic = "geometry_msgs/TwistStamped", "cmd_vel_wanted"

    def __init__(self, name: str, topic: str = "", part: TwistPart | None = None) -> None:
        super().__init__(name, topic, part)
        self.message = self.message if part is None else part.type
        self.stamped = self.message.endswith("Stamped")
        self.readers = _twist("twist." if self.stamped else "")
