"""Reads colour and mono cameras from ``sensor_msgs/Image``, without cv_bridge.

A frame goes in and out as one copy of its bytes: assigning an array to ``msg.data`` would convert
it element by element, which costs 56 ms for a VGA image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.inputs import RGB, ImageSpec, Mono
from wm_ros.convert import message_class, set_header
from wm_ros.sensors.source import Source

_RGB, _BGR = slice(0, 3), slice(2, None, -1)
#: encoding -> bytes of a pixel, colours that the network sees, which of the bytes they are
_ENCODINGS: dict[str, tuple[int, int, slice]] = {
    "rgb8": (3, 3, _RGB),
    "bgr8": (3, 3, _BGR),
    "rgba8": (4, 3, _RGB),
    "bgra8": (4, 3, _BGR),
    "mono8": (1, 1, slice(0, 1)),
}


class Camera(Source):
    """Is a camera whose frames are cropped and reduced to the size that the policy wants."""

    message, default_topic, is_image = "sensor_msgs/Image", "image_raw", True

    def fits(self, kind: object) -> bool:
        return isinstance(kind, RGB | Mono)

    def decode(self, msg: Any, kind: ImageSpec) -> np.ndarray:
        pixels, colours = _pixels(msg, kind.channels)
        return to_network(pixels, kind, colours)


def to_frame(msg: Any, channels: int) -> np.ndarray:
    """View the pixels of an image message without copying them.

    Args:
        msg: rgb8, bgr8, rgba8, bgra8 or mono8; rows may be padded (``step``).  One byte per value,
            so ``is_bigendian`` changes nothing.
        channels: 3 for RGB, 1 for mono: what the policy wants.

    Returns:
        (H, W, channels) uint8.

    Raises:
        SpecMismatch: for another encoding, or bytes that do not fit height, width and step.
    """
    pixels, colours = _pixels(msg, channels)
    return pixels[:, :, colours]


def _pixels(msg: Any, channels: int) -> tuple[np.ndarray, slice]:
    encoding = _ENCODINGS.get(msg.encoding)
    if encoding is None or encoding[1] != channels:
        fitting = [name for name, (_, colours, _) in _ENCODINGS.items() if colours == channels]
        raise SpecMismatch(
            f"camera: expected encoding {' or '.join(fitting)}, got {msg.encoding!r}"
        )
    depth, _, colours = encoding
    return pixels_of(msg, depth), colours


def pixels_of(msg: Any, depth: int) -> np.ndarray:
    """View (H, W, depth) uint8 of an image message with ``depth`` bytes per pixel.

    Raises:
        SpecMismatch: for bytes that do not fit height, width and step.
    """
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    if step < width * depth or len(msg.data) < height * step or not height * width:
        raise SpecMismatch(
            f"camera: expected at least {height} rows of {width * depth} bytes for "
            f"{width}x{height} {msg.encoding}, got step {step} and {len(msg.data)} bytes"
        )
    rows = np.frombuffer(msg.data, np.uint8, count=height * step).reshape(height, step)
    return rows[:, : width * depth].reshape(height, width, depth)


def to_image(frame: np.ndarray, stamp_ns: int, frame_id: str) -> Any:
    """Make an image message of ``frame`` (H, W, 3) RGB or (H, W, 1) uint8."""
    height, width, channels = frame.shape
    msg = message_class("sensor_msgs/Image")(
        height=height, width=width, step=width * channels, is_bigendian=0
    )
    set_header(msg.header, stamp_ns, frame_id)
    msg.encoding = "rgb8" if channels == 3 else "mono8"
    msg.data.frombytes(np.ascontiguousarray(frame, np.uint8).data)
    return msg
