"""Reads positions and velocities of joints from ``sensor_msgs/JointState``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import Vector
from wm_ros.convert import message_class, set_header
from wm_ros.sensors.source import Source


class JointStates(Source):
    """Hears joint states, of which the message nearest to the observation's stamp counts."""

    message, default_topic = "sensor_msgs/JointState", "joint_states"
    queue = kept = 10
    feeds_many = True

    def fits(self, kind: object) -> bool:
        return isinstance(kind, Vector)

    def decode(self, msg: Any, kind: Vector) -> np.ndarray:
        return to_vector(msg, kind.size, self.name)


def to_vector(msg: Any, size: int, what: str) -> np.ndarray:
    """Read (size,) float32 of a joint state: positions, with velocities behind where they fit.

    Raises:
        SpecMismatch: where neither has ``size`` numbers; ``what`` names the sensor.
    """
    positions, velocities = list(msg.position), list(msg.velocity)
    values = positions if len(positions) == size else positions + velocities
    if len(values) != size:
        raise SpecMismatch(
            f"{what}: expected {size} positions, or positions and velocities, "
            f"got {len(positions)} and {len(velocities)}"
        )
    return np.array(values, np.float32)


def from_vector(vector: np.ndarray, stamp_ns: int, names: Sequence[str]) -> Any:
    """Make a joint state whose positions are ``vector`` (n,)."""
    msg = message_class("sensor_msgs/JointState")(
        name=list(names), position=[float(v) for v in vector]
    )
    set_header(msg.header, stamp_ns)
    return msg
