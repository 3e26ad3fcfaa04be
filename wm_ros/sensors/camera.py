"""Reads colour and mono cameras from ``sensor_msgs/Image``, without cv_bridge.

A frame goes in and out as one copy of its bytes: assigning an array to ``msg.data`` would convert
it element by element, which costs 56 ms for a VGA image.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import RGB, ImageSpec, Mono
from wm_core.robot.parts import ImagePart
from wm_ros.convert import message_class, set_header
from wm_ros.sensors.bare import bare_image
from wm_ros.sensors.encodings import PACKED, pixels_of, to_input
from wm_ros.sensors.source import Source


class Camera(Source):
    """Is a camera whose frames are cropped and reduced to the size that the policy wants."""

    message, default_topic, is_image = "sensor_msgs/Image", "image_raw", True

    def _read(self, data: bytes) -> Any:
        return bare_image(data) or super()._read(data)

    def fits(self, kind: object) -> bool:
        return isinstance(kind, RGB | Mono)

    @property
    def accepts_mono(self) -> bool:
        """Whether a grey camera may stand in for one with colours."""
        return isinstance(self.part, ImagePart) and self.part.accept_mono

    def decode(self, msg: Any, kind: ImageSpec) -> np.ndarray:
        return to_input(msg, kind, accept_mono=self.accepts_mono)


def to_frame(msg: Any, channels: int) -> np.ndarray:
    """View the pixels of an image message without copying them.

    Args:
        msg: in a packed encoding, such as rgb8, bgra8 or mono8; rows may be padded (``step``).
            One byte per value, so ``is_bigendian`` changes nothing.
        channels: 3 for RGB, 1 for mono: what the policy wants.

    Returns:
        (H, W, channels) uint8.

    Raises:
        SpecMismatch: for another encoding, or bytes that do not fit height, width and step.
    """
    kind = PACKED.get(msg.encoding)
    if kind is None or kind.channels != channels:
        fitting = [name for name, packed in PACKED.items() if packed.channels == channels]
        raise SpecMismatch(
            f"camera: expected encoding {' or '.join(fitting)}, got {msg.encoding!r}"
        )
    return pixels_of(msg, kind.depth)[:, :, kind.colours]


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
