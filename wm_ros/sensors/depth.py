"""Reads depth cameras from ``sensor_msgs/Image`` in millimetres (16UC1) or metres (32FC1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.inputs import Depth
from wm_ros.sensors.camera import pixels_of
from wm_ros.sensors.source import Source

_DTYPES = {"16UC1": "u2", "32FC1": "f4"}
_MOST_MM = 2**16 - 1


class DepthCamera(Source):
    """Is a depth camera whose frames are cropped and reduced to the size that the policy wants."""

    message, default_topic, is_image = "sensor_msgs/Image", "depth/image_raw", True

    def fits(self, kind: object) -> bool:
        return isinstance(kind, Depth)

    def decode(self, msg: Any, kind: Depth) -> np.ndarray:
        return to_network(to_millimetres(msg), kind)


def to_millimetres(msg: Any) -> np.ndarray:
    """Read the distances in a depth image: (H, W, 1) uint16 millimetres, 0 where unknown.

    Distances that are not finite are unknown; what is further than 65.535 m counts as that far.

    Raises:
        SpecMismatch: for another encoding, or bytes that do not fit height, width and step.
    """
    if msg.encoding not in _DTYPES:
        raise SpecMismatch(f"depth: expected encoding 16UC1 or 32FC1, got {msg.encoding!r}")
    dtype = np.dtype(_DTYPES[msg.encoding]).newbyteorder(">" if msg.is_bigendian else "<")
    pixels = pixels_of(msg, dtype.itemsize).view(dtype)
    if dtype.kind == "u":
        return pixels.astype(np.uint16)
    known = np.nan_to_num(pixels * np.float32(1000.0), nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(np.rint(known), 0, _MOST_MM).astype(np.uint16)
