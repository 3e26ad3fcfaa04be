"""Turns a camera frame into the image that the network sees, alike on robot and trainer.

The array made here is what the policy sees *and* what is recorded, so that training and
acting cannot differ.  Resizing is computed in whole numbers (areas are rounded half to even): the
same bits on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import ImageSpec


@lru_cache(maxsize=16)
def _shares(source: int, target: int) -> np.ndarray:
    """Tell, (q, p) float32 whole numbers, how much of each source pixel each target covers.

    The pattern repeats every p source and q target pixels, p : q being source : target in lowest
    terms; each row sums to p.
    """
    common = gcd(source, target)
    p, q = source // common, target // common
    start, pixel = np.arange(q)[:, None] * p, np.arange(p) * q
    overlap = np.minimum(start + p, pixel + q) - np.maximum(start, pixel)
    shares: np.ndarray = np.clip(overlap, 0, None).astype(np.float32)
    return shares


def area_resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrink ``frame`` (H, W, C) to (height, width, C) uint8 means over each pixel's area.

    Sums are whole numbers that a float holds exactly, so that no order of summation and no
    processor's instructions can change a pixel.
    """
    rows, cols, channels = frame.shape
    tall, wide = _shares(rows, height), _shares(cols, width)
    (_, down), (q, across) = tall.shape, wide.shape
    strips = frame.reshape(-1, down, cols * channels).astype(np.float32)
    summed = np.matmul(tall, strips).reshape(height, cols // across, across, channels)
    exact = np.float32 if 255 * down * across < 2**24 else np.float64
    total = np.zeros((height, cols // across, q, channels), exact)
    for i, j in zip(*np.nonzero(wide), strict=True):
        total[:, :, i] += summed[:, :, j] * exact(wide[i, j])
    mean = total.reshape(height, width, channels).astype(np.float64) / (down * across)
    return np.rint(mean).astype(np.uint8)


def nearest_resize(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrink ``frame`` (H, W, C) to (height, width, C): the middle pixel of each pixel's area.

    For numbers that must not be averaged, such as distances on both sides of an edge.
    """
    rows = (2 * np.arange(height) + 1) * frame.shape[0] // (2 * height)
    cols = (2 * np.arange(width) + 1) * frame.shape[1] // (2 * width)
    return frame[rows[:, None], cols]


_RESIZE = {"area": area_resize, "nearest": nearest_resize}


def to_network(frame: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """Make the image that the network sees: a centre crop, then the resize of its kind.

    Args:
        frame: (H, W, C) with the channels and dtype of ``spec``, at least of its size.
        spec: the kind and size of image that the policy wants.

    Returns:
        (spec.height, spec.width, spec.channels), C-contiguous and owned by the caller.

    Raises:
        SpecMismatch: for another dtype or number of channels, or a frame that is too small.
    """
    if frame.dtype != spec.dtype or frame.ndim != 3 or frame.shape[2] != spec.channels:
        raise SpecMismatch(
            f"expected a (H, W, {spec.channels}) {spec.dtype} frame, "
            f"got {frame.shape} {frame.dtype}"
        )
    rows, cols = frame.shape[:2]
    if rows < spec.height or cols < spec.width:
        raise SpecMismatch(
            f"expected a frame of at least {spec.width}x{spec.height}, "
            f"got {cols}x{rows}; enlarging is not supported"
        )
    if frame.shape == spec.shape:
        return np.array(frame, order="C")
    height = min(rows, cols * spec.height // spec.width)  # of the largest part of that aspect
    width = min(cols, rows * spec.width // spec.height)
    top, left = (rows - height) // 2, (cols - width) // 2
    crop = frame[top : top + height, left : left + width]
    return _RESIZE[spec.resize](crop, spec.height, spec.width)
