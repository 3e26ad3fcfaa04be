"""Reads images of tables in the layouts that they are stored in, at the size of the network."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from wm_core.contract.errors import RecordingError, SpecMismatch
from wm_core.contract.image import to_network
from wm_core.contract.inputs import MAX_PIXELS, Depth, ImageSpec
from wm_core.recordings.table_options import OWN, SIZE, TableOptions

_BLOCK = 32  # frames that are read from a file together


class FrameShape(NamedTuple):
    """Says what the frames of a camera are."""

    height: int  #: pixels
    width: int  #: pixels
    channels: int  #: 1 or 3
    is_depth: bool = False  #: uint16 millimetres


def shape_of(shape: Sequence[int], dtype: Any, where: object) -> FrameShape:
    """Tell what frames of an array are that has this ``shape`` without the axis of time.

    Raises:
        RecordingError: for what is no image, such as one of floats.
    """
    dims = tuple(int(n) for n in shape)
    if len(dims) == 2:
        dims = (*dims, 1)
    if len(dims) == 3 and dims[2] not in (1, 3) and dims[0] in (1, 3):
        dims = (dims[1], dims[2], dims[0])
    kind = np.dtype(dtype)
    if len(dims) != 3 or dims[2] not in (1, 3) or not all(0 < n <= MAX_PIXELS for n in dims):
        raise RecordingError(
            f"{where}: expected images (H, W, 3) or (H, W, 1) of at most {MAX_PIXELS} pixels, got "
            f"{tuple(shape)}"
        )
    is_depth = kind == np.uint16 and dims[2] == 1
    if kind != np.uint8 and not is_depth:
        raise RecordingError(
            f"{where}: expected images of uint8, or depth in millimetres of uint16, got {kind}; "
            "leave it out with --without, or convert it"
        )
    return FrameShape(*dims, is_depth)


def image_spec(frame: FrameShape, options: TableOptions, where: object) -> ImageSpec:
    """Describe the images that the network sees of a camera with frames of this shape.

    Raises:
        RecordingError: where the frames are smaller than the size that was asked for.
    """
    size = options.size
    if size is None:
        small = min(frame.height, frame.width) < SIZE
        own = options.image_size == OWN or small
        size = (frame.height, frame.width) if own else (SIZE, SIZE)
    kind = {"height": size[0], "width": size[1], "fit": options.fit}
    spec = Depth(**kind) if frame.is_depth else ImageSpec(channels=frame.channels, **kind)
    if options.fit == "crop" and (frame.height < size[0] or frame.width < size[1]):
        raise RecordingError(
            f"{where}: frames of {frame.width}x{frame.height} are smaller than the "
            f"{size[1]}x{size[0]} that --image-size asks for; ask for less, or use --fit pad"
        )
    return spec


def frames_of(
    values: Any, frame: FrameShape, spec: ImageSpec, where: object
) -> Iterator[np.ndarray]:
    """Read images from an array, or from a dataset of a file, block by block.

    Args:
        values: (T, H, W, C), (T, C, H, W) or (T, H, W), read by slices.
        frame: what ``shape_of`` told of it.
        spec: of the images that come out.
        where: the recording, for messages.

    Yields:
        T images (height, width, C) of ``spec``.
    """
    for begin in range(0, len(values), _BLOCK):
        block = np.asarray(values[begin : begin + _BLOCK])
        if block.ndim == 3:
            block = block[..., None]
        elif block.shape[1:] != frame[:3]:
            block = np.moveaxis(block, 1, -1)
        for image in block:
            yield resized(image, spec, where)


def resized(image: np.ndarray, spec: ImageSpec, where: object) -> np.ndarray:
    """Bring a frame (H, W, C) to the size of ``spec`` by the arithmetic that robots use."""
    try:
        return to_network(image, spec)
    except SpecMismatch as error:
        raise RecordingError(f"{where}: {error}") from None


def decoded(data: bytes, where: object) -> np.ndarray:
    """Decode a compressed image to (H, W, C) uint8, or (H, W, 1) uint16.

    Raises:
        RecordingError: for bytes that are no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > MAX_PIXELS:
                raise RecordingError(f"{where}: an image of {image.size}, too large")
            if image.mode.startswith("I"):
                pixels = np.asarray(image)
                if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 2**16 - 1:
                    raise RecordingError(f"{where}: expected 16 bit of depth, got more")
                return pixels.astype(np.uint16)[:, :, None]
            pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        ValueError,
        SyntaxError,
    ) as error:
        raise RecordingError(f"{where}: an image cannot be read: {error}") from None
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
