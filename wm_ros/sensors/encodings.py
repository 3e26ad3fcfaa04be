"""Reads the encodings of ``sensor_msgs/Image``: which bytes are which colours.

What cameras send in planes or mosaics (YUV, Bayer) is first reduced to the network's size, plane
by plane, and turned into colours afterwards: a mean of areas is the same before and after, and
the small image is a hundredth of the work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.image import Placement, area_resize, framed, placement, to_network
from wm_core.contract.inputs import ImageSpec

_RGB, _BGR, _ALL = slice(0, 3), slice(2, None, -1), slice(None)


@dataclass(frozen=True, slots=True)
class Packed:
    """Describes pixels that hold their colours side by side, one byte each."""

    depth: int  #: bytes of a pixel
    colours: slice  #: those of them that are the network's colours, in its order

    @property
    def channels(self) -> int:
        return len(range(self.depth)[self.colours])


#: encodings whose colours need no computing
PACKED: Mapping[str, Packed] = {
    "rgb8": Packed(3, _RGB),
    "bgr8": Packed(3, _BGR),
    "rgba8": Packed(4, _RGB),
    "bgra8": Packed(4, _BGR),
    "8UC3": Packed(3, _BGR),  # as OpenCV keeps colours
    "mono8": Packed(1, _ALL),
    "8UC1": Packed(1, _ALL),
}
MONO16 = "mono16"
_YUV_CELLS = {  # where the brightness is, and the two colours, in 4 bytes of 2 pixels
    "uyvy": (1, 0, 2),
    "yuv422": (1, 0, 2),
    "yuyv": (0, 1, 3),
    "yuv422_yuy2": (0, 1, 3),
}
_NV_ORDER = {"nv12": (0, 1), "nv21": (1, 0)}
_BAYER = {  # places of red, both greens and blue in a cell of 2x2, as (row, column)
    "bayer_rggb8": ((0, 0), (0, 1), (1, 0), (1, 1)),
    "bayer_bggr8": ((1, 1), (0, 1), (1, 0), (0, 0)),
    "bayer_gbrg8": ((1, 0), (0, 0), (1, 1), (0, 1)),
    "bayer_grbg8": ((0, 1), (0, 0), (1, 1), (1, 0)),
}
COLOURS = (
    *(name for name, kind in PACKED.items() if kind.channels == 3),
    *_YUV_CELLS,
    *_NV_ORDER,
    *_BAYER,
)
MONO = (*(name for name, kind in PACKED.items() if kind.channels == 1), MONO16)


def to_input(msg: Any, spec: ImageSpec, *, accept_mono: bool = False) -> np.ndarray:
    """Make the image that the network sees of an image message.

    Args:
        msg: of one of ``COLOURS`` or ``MONO``; rows may be padded (``step``).
        spec: the kind and size of image that the policy wants.
        accept_mono: whether a grey camera may stand in for colours.

    Returns:
        (H, W, C) uint8 at the size of ``spec``, owned by the caller.

    Raises:
        SpecMismatch: for another encoding, bytes that do not fit height, width and step, or a
            frame that is too small.
    """
    known = (*COLOURS, *(MONO if accept_mono else ())) if spec.channels == 3 else MONO
    if msg.encoding not in known:
        raise SpecMismatch(
            f"camera: expected encoding {' or '.join(known)}, got {msg.encoding!r}"
            + (
                "; accept_mono in the robot file lets a grey camera stand in for colours"
                if spec.channels == 3 and msg.encoding in MONO
                else ""
            )
        )
    if msg.encoding in _YUV_CELLS:
        return _of_yuv422(msg, spec)
    if msg.encoding in _NV_ORDER:
        return _of_nv(msg, spec)
    if msg.encoding in _BAYER:
        return _of_bayer(msg, spec)
    pixels, colours = to_pixels(msg)
    if spec.channels == 3 and pixels.shape[2] == 1:
        grey = spec_of_one_channel(spec)
        return np.repeat(to_network(pixels, grey), 3, axis=2)
    return to_network(pixels, spec, colours)


def spec_of_one_channel(spec: ImageSpec) -> ImageSpec:
    """Describe a grey image of the size of ``spec``."""
    return ImageSpec(height=spec.height, width=spec.width, channels=1, fit=spec.fit)


def to_pixels(msg: Any) -> tuple[np.ndarray, slice]:
    """View (H, W, depth) uint8 of an image in a packed encoding, and which are its colours.

    Raises:
        SpecMismatch: for bytes that do not fit height, width and step.
    """
    if msg.encoding == MONO16:  # the upper byte of each
        upper = 0 if msg.is_bigendian else 1
        return pixels_of(msg, 2)[:, :, upper : upper + 1], _ALL
    kind = PACKED[msg.encoding]
    return pixels_of(msg, kind.depth), kind.colours


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


def _even_part(msg: Any, spec: ImageSpec, *, rows_too: bool) -> Placement:
    """Find the part that is seen, begun and ended at whole cells of two pixels."""
    height, width = int(msg.height), int(msg.width)
    if width % 2 or (rows_too and height % 2):
        raise SpecMismatch(
            f"camera: expected an even size for {msg.encoding}, got {width}x{height}"
        )
    place = placement(height, width, spec)
    rows, cols = place.rows, place.cols
    if rows_too:
        rows = slice(rows.start & ~1, rows.stop & ~1)
    return place._replace(rows=rows, cols=slice(cols.start & ~1, cols.stop & ~1))


def _half(part: slice) -> slice:
    return slice(part.start // 2, part.stop // 2)


def _shrunk(plane: np.ndarray, place: Placement) -> np.ndarray:
    """Reduce a plane (H, W) to (height, width) of ``place``, uint8."""
    return area_resize(plane[:, :, None], place.height, place.width)[:, :, 0]


def _of_yuv422(msg: Any, spec: ImageSpec) -> np.ndarray:
    bright, blue, red = _YUV_CELLS[msg.encoding]
    place = _even_part(msg, spec, rows_too=False)
    pixels = pixels_of(msg, 2)[place.rows, place.cols]
    cells = pixels.reshape(pixels.shape[0], -1, 4)
    colours = _colours_of_yuv(
        _shrunk(pixels[:, :, bright], place),
        _shrunk(cells[:, :, blue], place),
        _shrunk(cells[:, :, red], place),
    )
    return framed(colours, place, spec)


def _of_nv(msg: Any, spec: ImageSpec) -> np.ndarray:
    place = _even_part(msg, spec, rows_too=True)
    bright = pixels_of(msg, 1)[place.rows, place.cols, 0]
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    if len(msg.data) < height * step * 3 // 2:
        raise SpecMismatch(
            f"camera: expected {height * step * 3 // 2} bytes for {width}x{height} "
            f"{msg.encoding}, got {len(msg.data)}"
        )
    tones = np.frombuffer(msg.data, np.uint8, count=height // 2 * step, offset=height * step)
    pairs = tones.reshape(height // 2, step)[:, :width].reshape(height // 2, width // 2, 2)
    pairs = pairs[_half(place.rows), _half(place.cols)]
    blue, red = _NV_ORDER[msg.encoding]
    colours = _colours_of_yuv(
        _shrunk(bright, place),
        _shrunk(pairs[:, :, blue], place),
        _shrunk(pairs[:, :, red], place),
    )
    return framed(colours, place, spec)


def _colours_of_yuv(bright: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
    """Turn brightness 16 .. 235 and two colours around 128, (H, W) each, to (H, W, 3) RGB.

    Source: ITU-R BT.601, in fixed point with 20 bits.
    """
    light = np.maximum(bright.astype(np.int32) - 16, 0) * 1_220_542 + (1 << 19)
    u, v = blue.astype(np.int32) - 128, red.astype(np.int32) - 128
    colours = (
        light + 1_673_527 * v,
        light - 852_492 * v - 409_993 * u,
        light + 2_116_026 * u,
    )
    return np.stack([np.clip(c >> 20, 0, 255) for c in colours], axis=2).astype(np.uint8)


def _of_bayer(msg: Any, spec: ImageSpec) -> np.ndarray:
    place = _even_part(msg, spec, rows_too=True)
    mosaic = pixels_of(msg, 1)[place.rows, place.cols, 0]
    red, green, other, blue = (
        _shrunk(mosaic[row::2, col::2], place) for row, col in _BAYER[msg.encoding]
    )
    greens = ((green.astype(np.uint16) + other + 1) >> 1).astype(np.uint8)
    return framed(np.stack([red, greens, blue], axis=2), place, spec)
