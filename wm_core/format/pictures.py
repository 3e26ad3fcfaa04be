"""Encodes and decodes the JPEG pictures of a chunk, the lossy form of a noisy camera's images.

A picture is encoded once, on the robot, and its bytes are copied from then on.  What arrives from
elsewhere is held to the plain form first (one frame of the camera's size, coded in one scan), so
that its decoder never takes more memory or time than the pixels need.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.inputs import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Codec = Literal["jpeg"]  #: how images are recorded that are not recorded as they are
Codecs = Mapping[str, Codec]  #: by camera; the others are lossless

QUALITY = 95  #: of what is encoded here
SLACK_BYTES = 768  #: that a picture may have beyond its pixels': headers and tables

_QUALITIES = (QUALITY, 80, 50)  # the lesser where a picture would be larger than its pixels
_START = b"\xff\xd8"
_APP, _COMMENT, _TABLES = range(0xE0, 0xF0), 0xFE, (0xC4, 0xDB, 0xDD)
_FRAMES, _SCAN = (0xC0, 0xC1), 0xDA  # baseline and extended: sequential, by Huffman's codes


def can_be_jpeg(image: ImageSpec) -> bool:
    """Tell whether images of this kind are pictures, whose pixels may be a little off."""
    return image.encoding in ("rgb8", "mono8") and image.resize == "area"


def encode_picture(pixels: np.ndarray, image: ImageSpec) -> bytes:
    """Encode ``pixels`` (H, W, C) uint8, which fit ``image``, as JPEG without subsampled colours.

    The same pixels give the same bytes on the same version of Pillow.

    Raises:
        ChunkRefused: where the encoder fails.
    """
    from PIL import Image

    picture = Image.fromarray(
        np.ascontiguousarray(pixels if image.channels == 3 else pixels[..., 0])
    )
    data = b""
    for quality in _QUALITIES:
        try:
            data = jpeg_bytes(picture, quality, subsampling=0)
        except OSError as error:
            raise ChunkRefused(f"image does not become a JPEG picture: {error}") from error
        if len(data) <= most_bytes(image):
            break
    return data


def jpeg_bytes(picture: Image, quality: int, *, subsampling: int = -1) -> bytes:
    """Encode ``picture``; other threads run meanwhile, as Pillow writes into a file.

    Args:
        picture: RGB or gray.
        quality: 1 to 95.
        subsampling: of colours, as Pillow numbers them; -1: what is usual for JPEG.

    Raises:
        OSError: where the encoder fails.
    """
    with _scratch() as out:
        picture.save(out, "JPEG", quality=quality, subsampling=subsampling)
        out.seek(0)
        return out.read()


def _scratch() -> BinaryIO:
    """Open a file, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return cast(BinaryIO, open(os.memfd_create("picture"), "w+b", buffering=0))
    return cast(BinaryIO, tempfile.TemporaryFile())


def most_bytes(image: ImageSpec) -> int:
    """Bound the bytes of one JPEG picture of ``image``."""
    return image.recorded_bytes + SLACK_BYTES


def check_picture(data: bytes | memoryview, image: ImageSpec) -> None:
    """Raise ``ChunkRefused`` unless ``data`` begins as a plain JPEG picture of ``image``.

    Its pixels are not looked at.  The markers that may come before them are those that every
    decoder reads alike, so that none can take the picture for a larger one.
    """
    if len(data) > most_bytes(image):
        raise ChunkRefused(f"JPEG picture of {len(data)} bytes; at most {most_bytes(image)}")
    if bytes(data[:2]) != _START:
        raise ChunkRefused(
            f"expected a JPEG picture, which begins with ff d8, got {len(data)} bytes"
        )
    frame: tuple[int, int, int] | None = None
    for marker, body in _segments(data):
        if marker in _FRAMES:
            if frame is not None:
                raise ChunkRefused("JPEG picture with two frames")
            frame = _frame(body)
        elif marker == _SCAN:
            if frame is None or not body or body[0] != frame[2]:
                raise ChunkRefused("expected a JPEG picture of one scan, got parts of one")
            break
    if frame != image.shape:
        raise ChunkRefused(f"expected a JPEG picture of {image.shape}, got {frame}")


def _segments(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield marker and content of each segment, the scan's last."""
    at, view = 2, memoryview(data)
    while at + 4 <= len(view):
        marker, size = view[at + 1], view[at + 2] << 8 | view[at + 3]
        known = marker in (*_TABLES, *_FRAMES, _SCAN, _COMMENT) or marker in _APP
        if view[at] != 0xFF or not known or not 2 <= size <= len(view) - at - 2:
            raise ChunkRefused(f"expected a plain JPEG picture, got marker {marker:02x} at {at}")
        yield marker, view[at + 4 : at + 2 + size]
        if marker == _SCAN:
            return
        at += 2 + size
    raise ChunkRefused("JPEG picture ends before its pixels")


def _frame(head: memoryview) -> tuple[int, int, int]:
    """Height, width and channels of a frame's header."""
    if len(head) < 6 or head[0] != 8 or len(head) != 6 + 3 * head[5]:
        raise ChunkRefused("expected a JPEG picture of eight bits")
    return head[1] << 8 | head[2], head[3] << 8 | head[4], head[5]


def decode_picture(data: bytes | memoryview, image: ImageSpec) -> np.ndarray:
    """Decode a JPEG picture that may come from anywhere to (H, W, C) uint8.

    Raises:
        ChunkRefused: where it is no whole, plain JPEG picture of ``image``.
    """
    from PIL import Image

    check_picture(data, image)
    mode = "RGB" if image.channels == 3 else "L"
    try:
        picture = Image.frombytes(mode, (image.width, image.height), bytes(data), "jpeg", mode, "")
    except (ValueError, OSError) as error:
        raise ChunkRefused(f"JPEG picture does not decode: {error}") from error
    return np.asarray(picture).reshape(image.shape)
