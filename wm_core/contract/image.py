"""Turns a camera frame into the image that the network sees, alike on robot and trainer.

The array made here is what the policy sees *and* what is recorded, so that training and
acting cannot differ.  Resizing is computed in whole numbers (areas are rounded half to even): the
same bits on every machine.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import ImageSpec


def _sum_rows(rows: np.ndarray, target: int, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """Sum ``rows`` (R, K) to (target, K): each target's share of the rows that it covers.

    With R : target in lowest terms as p : q, a row counts q where it lies wholly inside, less at
    the edges, p in all: the pattern repeats every p rows and q targets, so each step below adds
    for all repetitions at once.
    """
    common = gcd(rows.shape[0], target)
    p, q = rows.shape[0] // common, target // common
    source = rows.astype(dtype, order="C", copy=False).reshape(common, p, -1)
    total = np.empty((common, q, source.shape[2]), dtype)
    for i in range(q):
        (first, before), (last, inside) = divmod(i * p, q), divmod((i + 1) * p, q)
        whole, out = first + (before > 0), total[:, i]
        np.add.reduce(source[:, whole:last], axis=1, out=out)  # zeros of no rows at all
        if q > 1:
            out *= dtype(q)
        if before:
            out += source[:, first] * dtype(min(q - before, p))
        if inside and last >= whole:
            out += source[:, last] * dtype(inside)
    return total.reshape(target, -1)


def _unsigned(largest: int) -> type[np.unsignedinteger]:
    """Choose the smallest whole numbers that hold ``largest``."""
    return next(t for t in (np.uint16, np.uint32, np.uint64) if largest <= np.iinfo(t).max)


def area_resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize ``frame`` (H, W, C) to (height, width, C) uint8 means over each pixel's area.

    By a whole factor it repeats the pixels of a smaller frame as they are.

    Sums are whole numbers, so that no order of summation and no processor's instructions can
    change a pixel.  Nothing here is a product of matrices: libraries for those start threads,
    which beside a busy robot cost more than the work.
    """
    rows, cols, channels = frame.shape
    down, across = rows // gcd(rows, height), cols // gcd(cols, width)
    strips = _sum_rows(frame.reshape(rows, -1), height, _unsigned(255 * down))
    pixel = np.dtype((np.void, channels * strips.itemsize))  # moved as one, not value by value
    turned = np.ascontiguousarray(strips.view(pixel).T).view(strips.dtype).reshape(cols, -1)
    total = _sum_rows(turned, width, _unsigned(255 * down * across))
    mean = np.divide(total.reshape(width, height, channels), np.float64(down * across))
    return np.ascontiguousarray(np.rint(mean, out=mean).astype(np.uint8).transpose(1, 0, 2))


def nearest_resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize ``frame`` (H, W, C) to (height, width, C): the middle pixel of each pixel's area.

    For numbers that must not be averaged, such as distances on both sides of an edge.
    """
    rows = (2 * np.arange(height) + 1) * frame.shape[0] // (2 * height)
    cols = (2 * np.arange(width) + 1) * frame.shape[1] // (2 * width)
    return frame[rows[:, None], cols]


_RESIZE = {"area": area_resize, "nearest": nearest_resize}


class Placement(NamedTuple):
    """Says which part of a frame the network sees, how large, and where in its image."""

    rows: slice  #: of the frame
    cols: slice  #: of the frame
    height: int  #: that these rows are resized to, pixels
    width: int  #: that these columns are resized to, pixels
    top: int  #: rows of zeros above
    left: int  #: columns of zeros on the left


def placement(rows: int, cols: int, spec: ImageSpec) -> Placement:
    """Find how a frame is brought to the size of ``spec``, by its rule ``spec.fit``.

    Args:
        rows: of the frame, pixels.
        cols: of the frame, pixels.
        spec: the kind and size of image that the policy wants.

    Raises:
        SpecMismatch: for a frame that is smaller than ``spec`` where its rule is ``crop``.
    """
    high, wide = spec.height, spec.width
    if spec.fit == "crop":
        return Placement(*centre_crop(rows, cols, spec), high, wide, 0, 0)
    height, width = high, wide
    if spec.fit == "pad":
        if rows <= high and cols <= wide:
            factor = min(high // rows, wide // cols)
            height, width = factor * rows, factor * cols
        elif rows * wide > cols * high:
            width = max(1, (2 * cols * high + rows) // (2 * rows))
        else:
            height = max(1, (2 * rows * wide + cols) // (2 * cols))
    top, left = (high - height) // 2, (wide - width) // 2
    return Placement(slice(0, rows), slice(0, cols), height, width, top, left)


def framed(part: np.ndarray, place: Placement, spec: ImageSpec) -> np.ndarray:
    """Lay ``part`` (height, width, C), resized as ``place`` says, into an image of ``spec``.

    Returns:
        (spec.height, spec.width, C); ``part`` itself where that is its size, else it is
        surrounded by zeros.
    """
    if part.shape[:2] == (spec.height, spec.width):
        return part
    image = np.zeros((spec.height, spec.width, part.shape[2]), part.dtype)
    image[place.top : place.top + place.height, place.left : place.left + place.width] = part
    return image


def to_network(frame: np.ndarray, spec: ImageSpec, colours: slice = slice(None)) -> np.ndarray:
    """Make the image that the network sees: placed by the rule of ``spec``, resized by its kind.

    Args:
        frame: (H, W, C) with the channels and dtype of ``spec``; at least of its size, unless
            the rule is to pad or to squeeze.
        spec: the kind and size of image that the policy wants.
        colours: which channels of ``frame`` are those of ``spec``, where it has others or another
            order.  Chosen after the resize, because pixels are summed fastest as they lie.

    Returns:
        (spec.height, spec.width, spec.channels), C-contiguous and owned by the caller.

    Raises:
        SpecMismatch: for another dtype or number of channels, or a frame that is too small.
    """
    channels = len(range(frame.shape[2])[colours]) if frame.ndim == 3 else 0
    if frame.dtype != spec.dtype or channels != spec.channels or not frame.size:
        raise SpecMismatch(
            f"expected a (H, W, {spec.channels}) {spec.dtype} frame, "
            f"got {frame.shape} {frame.dtype}"
        )
    rows, cols = frame.shape[:2]
    place = placement(rows, cols, spec)
    if (rows, cols) == (spec.height, spec.width):
        return np.array(frame[:, :, colours], order="C")
    part = frame[place.rows, place.cols]
    small = _RESIZE[spec.resize](part, place.height, place.width)
    return np.ascontiguousarray(framed(small, place, spec)[:, :, colours])


def centre_crop(rows: int, cols: int, spec: ImageSpec) -> tuple[slice, slice]:
    """Find the largest part of a frame's centre that has the aspect of ``spec``.

    Args:
        rows: of the frame, pixels.
        cols: of the frame, pixels.
        spec: the kind and size of image that the policy wants.

    Returns:
        The rows and the columns of that part.

    Raises:
        SpecMismatch: for a frame that is smaller than ``spec``.
    """
    if rows < spec.height or cols < spec.width:
        raise SpecMismatch(
            f"expected a frame of at least {spec.width}x{spec.height}, "
            f"got {cols}x{rows}; enlarging is not supported where fit is crop"
        )
    height = min(rows, cols * spec.height // spec.width)
    width = min(cols, rows * spec.width // spec.height)
    top, left = (rows - height) // 2, (cols - width) // 2
    return slice(top, top + height), slice(left, left + width)
