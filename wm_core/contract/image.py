"""Camera frame to network image: the one preprocessing that robot and trainer share.

The uint8 array made here is what the policy sees *and* what is recorded, so that training and
acting cannot differ.  Area resize only: at an integer ratio it equals the block mean, rounded
half to even, bit for bit the same as OpenCV's INTER_AREA.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ImageSpec


@lru_cache(maxsize=16)
def _area_weights(source: int, target: int) -> np.ndarray:
    """(target, source) float32: the share of each source pixel in each target pixel."""
    edges = np.linspace(0.0, source, target + 1)
    pixel = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixel + 1.0) - np.maximum(edges[:-1, None], pixel)
    return (np.clip(overlap, 0.0, 1.0) * (target / source)).astype(np.float32)


def _center_crop(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The largest centred part (h, w, C) of ``frame`` with the aspect ratio height : width."""
    rows, cols = frame.shape[:2]
    h = min(rows, cols * height // width)
    w = min(cols, rows * width // height)
    top, left = (rows - h) // 2, (cols - w) // 2
    return frame[top : top + h, left : left + w]


def to_network(frame: np.ndarray, spec: ImageSpec) -> np.ndarray:
    """The image that the network sees: centre crop to its aspect ratio, then area resize.

    Args:
        frame: (H, W, C) uint8, RGB or mono as ``spec.channels`` says, at least ``spec``'s size.
        spec: the size and channels that the policy wants.

    Returns:
        (spec.height, spec.width, spec.channels) uint8, C-contiguous and owned by the caller.

    Raises:
        SpecMismatch: for another dtype or number of channels, or a frame that is too small.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != spec.channels:
        raise SpecMismatch(
            f"expected a (H, W, {spec.channels}) uint8 frame, got {frame.shape} {frame.dtype}"
        )
    if frame.shape[0] < spec.height or frame.shape[1] < spec.width:
        raise SpecMismatch(
            f"expected a frame of at least {spec.width}x{spec.height}, "
            f"got {frame.shape[1]}x{frame.shape[0]}; enlarging is not supported"
        )
    if frame.shape == spec.shape:
        return np.array(frame, order="C")
    crop = _center_crop(frame, spec.height, spec.width)
    rows, cols = crop.shape[:2]
    if rows % spec.height == 0 and cols % spec.width == 0:
        kh, kw = rows // spec.height, cols // spec.width
        total = np.zeros(spec.shape, np.uint32)
        for i in range(kh):
            for j in range(kw):
                total += crop[i::kh, j::kw]
        mean = total.astype(np.float32) * np.float32(1.0 / (kh * kw))
    else:
        tall = np.tensordot(_area_weights(rows, spec.height), crop.astype(np.float32), axes=1)
        wide = np.tensordot(_area_weights(cols, spec.width), tall, axes=([1], [1]))
        mean = wide.transpose(1, 0, 2)
    return np.ascontiguousarray(np.rint(mean).clip(0, 255).astype(np.uint8))
