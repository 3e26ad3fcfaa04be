"""Reads depth cameras from ``sensor_msgs/Image`` in millimetres (16UC1) or metres (32FC1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import framed, nearest_resize, placement
from wm_core.contract.inputs import Depth
from wm_ros.sensors.bare import bare_image
from wm_ros.sensors.encodings import pixels_of
from wm_ros.sensors.source import Source

_DTYPES = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_MOST_MM = 2**16 - 1


class DepthCamera(Source):
    """Is a depth camera whose frames are cropped and reduced to the size that the policy wants."""

    message, default_topic, is_image = "sensor_msgs/Image", "depth/image_raw", True

    def _read(self, data: bytes) -> Any:
        return bare_image(data) or super()._read(data)

    def fits(self, kind: object) -> bool:
        return isinstance(kind, Depth)

    def decode(self, msg: Any, kind: Depth) -> np.ndarray:
        return millimetres(picked(distances_of(msg), kind))


def picked(distances: np.ndarray, kind: Depth) -> np.ndarray:
    """Pick of distances (H, W, 1) the pixels that the network sees, at the size of ``kind``."""
    place = placement(distances.shape[0], distances.shape[1], kind)
    part = distances[place.rows, place.cols]
    return framed(nearest_resize(part, place.height, place.width), place, kind)


def to_millimetres(msg: Any) -> np.ndarray:
    """Read the distances in a depth image: (H, W, 1) uint16 millimetres, 0 where unknown.

    Distances that are not finite are unknown; what is further than 65.535 m counts as that far.

    Raises:
        SpecMismatch: for another encoding, or bytes that do not fit height, width and step.
    """
    return millimetres(distances_of(msg))


def distances_of(msg: Any) -> np.ndarray:
    """View the distances in a depth image, (H, W, 1): whole millimetres or metres.

    Raises:
        SpecMismatch: for another encoding, or bytes that do not fit height, width and step.
    """
    if msg.encoding not in _DTYPES:
        raise SpecMismatch(f"depth: expected encoding 16UC1 or 32FC1, got {msg.encoding!r}")
    dtype = np.dtype(_DTYPES[msg.encoding]).newbyteorder(">" if msg.is_bigendian else "<")
    return pixels_of(msg, dtype.itemsize).view(dtype)


def millimetres(distances: np.ndarray) -> np.ndarray:
    """Turn distances (H, W, 1), millimetres if whole and else metres, into uint16 millimetres."""
    if distances.dtype.kind == "u":
        return distances.astype(np.uint16)
    known = np.nan_to_num(distances * np.float32(1000.0), nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(np.rint(known), 0, _MOST_MM).astype(np.uint16)
