"""Reads cameras from ``sensor_msgs/CompressedImage``: JPEG and PNG, through Pillow.

The size that a file states is looked at before it is unpacked, so that a small message cannot
fill the memory.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import placement, to_network
from wm_core.contract.inputs import RGB, Depth, ImageSpec, Mono
from wm_core.robot.parts import ImagePart
from wm_ros.sensors.bare import bare_compressed
from wm_ros.sensors.depth import millimetres, picked
from wm_ros.sensors.encodings import spec_of_one_channel
from wm_ros.sensors.source import Source

MOST_PIXELS = 2**24  #: of an image that is unpacked
_PNG = b"\x89PNG"
_DEPTH_HEADER = struct.Struct("<iff")  #: format, and two numbers of the inverse of depth


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise SpecMismatch(
            "compressed images need Pillow: pip install pillow, or apt install python3-pil"
        ) from error
    Image.init()  # its readers are imported now, not with the first frame
    return Image


class CompressedSource(Source):
    """Is any camera that sends compressed frames, which Pillow unpacks."""

    message, is_image = "sensor_msgs/CompressedImage", True

    def __init__(self, name: str, topic: str = "", part: Any = None) -> None:
        super().__init__(name, topic, part)
        self._image = _pillow()

    def _read(self, data: bytes) -> Any:
        return bare_compressed(data) or super()._read(data)


class CompressedCamera(CompressedSource):
    """Is a camera whose frames come as JPEG or PNG."""

    default_topic = "image_raw/compressed"

    def __init__(self, name: str, topic: str = "", part: Any = None) -> None:
        super().__init__(name, topic, part)
        #: the image (H, W, C) that was read last and its JPEG picture, where neither was reduced
        self.unpacked: tuple[np.ndarray, bytes] | None = None

    def fits(self, kind: object) -> bool:
        return isinstance(kind, RGB | Mono)

    def decode(self, msg: Any, kind: ImageSpec) -> np.ndarray:
        accepts_mono = isinstance(self.part, ImagePart) and self.part.accept_mono
        self.unpacked, data = None, bytes(msg.data)
        with _Opened(self._image, data, msg.format) as picture:
            as_is = picture.format == "JPEG" and picture.size == (kind.width, kind.height)
            grey = _is_grey(picture, msg.format)
            if grey and kind.channels == 3 and not accepts_mono:
                raise SpecMismatch(
                    f"camera: expected colours, got a grey {picture.format} ({msg.format!r}); "
                    "accept_mono in the robot file lets a grey camera stand in for colours"
                )
            if not grey and kind.channels == 1:
                raise SpecMismatch(
                    f"camera: expected a grey image, got {picture.mode} ({msg.format!r})"
                )
            pixels = _unpacked(picture, kind, "L" if grey else "RGB")
        if grey and kind.channels == 3:
            return np.repeat(to_network(pixels, spec_of_one_channel(kind)), 3, axis=2)
        image = to_network(pixels, kind)
        if as_is:
            self.unpacked = image, data
        return image


class CompressedDepthCamera(CompressedSource):
    """Is a depth camera whose frames come as PNG with 16 bits, in millimetres.

    What ``compressed_depth_image_transport`` sends is read too, also of metres as floats.
    """

    default_topic = "depth/image_raw/compressedDepth"

    def fits(self, kind: object) -> bool:
        return isinstance(kind, Depth)

    def decode(self, msg: Any, kind: Depth) -> np.ndarray:
        data = bytes(msg.data)
        start = data.find(_PNG, 0, _DEPTH_HEADER.size + len(_PNG))
        if start not in (0, _DEPTH_HEADER.size):
            raise SpecMismatch(f"depth: expected a PNG of 16 bits, got {msg.format!r}")
        with _Opened(self._image, data[start:], msg.format) as picture:
            if not picture.mode.startswith("I"):
                raise SpecMismatch(f"depth: expected a PNG of 16 bits, got mode {picture.mode!r}")
            pixels = np.asarray(picture)[:, :, None]
        values = picked(pixels, kind)
        if start and msg.format.startswith("32FC1"):
            _, factor, shift = _DEPTH_HEADER.unpack_from(data)
            return millimetres(_of_inverse(values, factor, shift))
        return values.astype(np.uint16)


def _of_inverse(values: np.ndarray, factor: float, shift: float) -> np.ndarray:
    """Turn inverse depths (H, W, 1) of whole numbers into metres; 0 stays unknown."""
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.float32(factor) / (values.astype(np.float32) - np.float32(shift))
    return np.where(values > 0, metres, np.float32(np.nan)).astype(np.float32)


def _is_grey(picture: Any, named: str) -> bool:
    if picture.mode in ("L", "1", "I", "I;16"):
        if picture.mode != "L":
            raise SpecMismatch(
                f"camera: expected 8 bits per colour, got mode {picture.mode!r} ({named!r})"
            )
        return True
    if picture.mode not in ("RGB", "RGBA"):
        raise SpecMismatch(f"camera: expected RGB or grey, got mode {picture.mode!r} ({named!r})")
    return False


def _unpacked(picture: Any, kind: ImageSpec, mode: str) -> np.ndarray:
    """Unpack (H, W, C) uint8; a JPEG at a half, quarter or eighth where that is fine enough."""
    cols, rows = picture.size
    place = placement(rows, cols, kind)
    share = max(
        2 * place.height / (place.rows.stop - place.rows.start),
        2 * place.width / (place.cols.stop - place.cols.start),
    )
    if share < 1.0:  # a JPEG holds the means of its areas: reading those is exact, and quick
        picture.draft(mode, (int(np.ceil(cols * share)), int(np.ceil(rows * share))))
    pixels = np.asarray(picture.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


class _Opened:
    """Opens a compressed image, after a look at its kind and size, and closes it again.

    Raises:
        SpecMismatch: for another kind, too many pixels, or broken data, also while it is read.
    """

    def __init__(self, pillow: Any, data: bytes, named: str) -> None:
        self._pillow, self._data, self._named = pillow, data, named

    def __enter__(self) -> Any:
        try:
            picture = self._pillow.open(io.BytesIO(self._data), formats=("JPEG", "PNG"))
        except Exception as error:
            raise SpecMismatch(
                f"camera: expected a JPEG or PNG, got {len(self._data)} bytes of "
                f"{self._named!r}: {error}"
            ) from error
        cols, rows = picture.size
        if cols * rows > MOST_PIXELS:
            raise SpecMismatch(f"camera: expected at most {MOST_PIXELS} pixels, got {cols}x{rows}")
        return picture

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, SpecMismatch):
            raise SpecMismatch(
                f"camera: expected a whole image, got {self._named!r} of {len(self._data)} "
                f"bytes that cannot be unpacked: {error}"
            ) from error
