"""Decides which boxes of numbers are images, and turns their values into pixels.

============================  =================================================================
Shape of the box              What the network sees
============================  =================================================================
(H, W), (H, W, 1), (1, H, W)  a gray image; of uint16, distances in millimetres
(H, W, 3), (3, H, W)          a colour image
(H, W, 4), from 32x32         the colours of RGBA, without the transparency
(N, ...) of these, (N, H, W)  the newest of N stacked frames, the last: models have a memory
(H, W, 3*N), (3*N, H, W)      the newest of N stacked colour images
============================  =================================================================

Of uint8, images may be of any size; of other kinds they have at least 32 rows and columns, or 8
where floats are bounded as pixels are.  Values within bounds like 0 .. 255 are pixels as they are;
other bounds are stretched to 0 .. 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from wm_core.contract.errors import SettingsError, shown
from wm_core.contract.inputs import MAX_PIXELS, Depth, ImageSpec

_SIDE = 32  #: rows and columns from which numbers of any kind are an image
_SMALL_SIDE = 8  #: the same for distances, for channels that come first, for floats like pixels
_LEAST_SIDE = 2  #: the same for uint8
_MOST_FRAMES = 16  #: stacked in one observation
_WIDEST = 1e9  #: range of the bounds of pixels; a space without true bounds has a wider one
_LIKE_PIXELS = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))  #: bounds that floats of images have


class PixelLayout(NamedTuple):
    """Says where an array holds its image: the axes, and the newest of its frames."""

    channels: int  #: of the image: 1 or 3
    words: tuple[str, ...] = ()  #: what is special about it
    stacked: bool = False  #: the first axis counts frames
    first: bool = False  #: channels come before rows and columns
    taken: slice = slice(None)  #: those of the channels that are the image's

    def of(self, values: np.ndarray) -> np.ndarray:
        """Take the image (H, W, channels) out of ``values`` (*shape)."""
        image = values[-1] if self.stacked else values
        if image.ndim == 2:
            return image[:, :, None]
        return (np.moveaxis(image, 0, -1) if self.first else image)[:, :, self.taken]


def pixel_layout(shape: tuple[int, ...], least: int) -> PixelLayout | None:
    """Find the image of at least ``least`` rows and columns that an array of ``shape`` holds."""
    if len(shape) == 2:
        return PixelLayout(1) if min(shape) >= least else None
    if len(shape) == 4:
        frame = _one_frame(shape[1:], least)
        newest = (f"newest of {shape[0]} frames",)
        return frame and frame._replace(stacked=True, words=newest + frame.words)
    return _one_frame(shape, least) or _stack(shape) if len(shape) == 3 else None


def _one_frame(shape: tuple[int, ...], least: int) -> PixelLayout | None:
    front, _, last = shape
    if last in (1, 3, 4) and min(shape[:2]) >= (max(least, _SIDE) if last == 4 else least):
        words = ("without transparency",) if last == 4 else ()
        return PixelLayout(min(last, 3), words, taken=slice(0, 3))
    if front in (1, 3) and min(shape[1:]) >= max(least, _SMALL_SIDE):
        return PixelLayout(front, ("channels first",), first=True)
    return None


def _stack(shape: tuple[int, ...]) -> PixelLayout | None:
    """Find the newest of the frames that lie one behind the other."""
    front, _, last = shape
    most = 3 * _MOST_FRAMES
    if min(shape[:2]) >= _SIDE and last % 3 == 0 and last <= min(most, *shape[:2]):
        return PixelLayout(3, (f"newest of {last // 3} frames",), taken=slice(-3, None))
    if min(shape[1:]) < _SIDE or front > min(most, *shape[1:]):
        return None
    if front % 3 == 0:
        words = ("channels first", f"newest of {front // 3} frames")
        return PixelLayout(3, words, first=True, taken=slice(-3, None))
    return (
        PixelLayout(1, (f"newest of {front} frames",), stacked=True)
        if front <= _MOST_FRAMES
        else None
    )


@dataclass(frozen=True)
class PixelRule:
    """Turns the values of a box into an image at its own size."""

    layout: PixelLayout
    spec: ImageSpec  #: of the image at its own size
    low: float  #: value that becomes the pixel 0
    factor: float  #: pixels per unit of the values
    exact: bool  #: the values are pixels, or distances, of the right kind already

    def frame(self, values: np.ndarray) -> tuple[np.ndarray, bool]:
        """Make the image of ``values`` (*shape); tells too whether all of them were finite.

        Returns:
            (H, W, 1 or 3) uint8, or uint16 for distances; zero where a value is NaN.
        """
        image = self.layout.of(values)
        if self.exact:
            return image, True
        with np.errstate(invalid="ignore", over="ignore"):
            pixels = (image.astype(np.float64) - self.low) * self.factor
        finite = bool(np.isfinite(pixels).all())
        return np.rint(np.clip(np.nan_to_num(pixels), 0.0, 255.0)).astype(np.uint8), finite

    @property
    def words(self) -> str:
        """Say what becomes of the values, for a person to read."""
        stretched = not self.exact and (self.low, self.factor) != (0.0, 1.0)
        high = self.low + 255.0 / self.factor
        range_ = (f"{self.low:g} .. {high:g} becomes 0 .. 255",) if stretched else ()
        return ", ".join((*self.layout.words, *range_))


def pixel_rule(key: str, box: spaces.Box) -> PixelRule | None:
    """Decide whether ``box`` is an image, and how its values become pixels; None: it is none.

    Args:
        key: names it in an error.
        box: a part of an observation, with one number at least.

    Raises:
        SettingsError: for an image whose channels or bounds leave open what it shows.
    """
    low, high = float(box.low.min()), float(box.high.max())
    layout = pixel_layout(box.shape, _least(box, (low, high)))
    if layout is None:
        if len(box.shape) in (3, 4) and sorted(box.shape)[-2] >= _SIDE:
            raise _refused(key, box, "an axis of 1, 3 or 4 channels, last or first")
        return None
    rows, cols = layout.of(np.empty(box.shape, np.bool_)).shape[:2]
    size = {"height": rows, "width": cols}
    if max(size.values()) > MAX_PIXELS:
        raise _refused(key, box, f"at most {MAX_PIXELS} rows and columns")
    if box.dtype == np.uint16 and layout.channels == 1:
        near = min(int(low), int(np.iinfo(np.uint16).max) - 1)  # constants have a range too
        far = max(int(high), near + 1)
        return PixelRule(layout, Depth(**size, near_mm=near, far_mm=far), 0.0, 1.0, exact=True)
    if not math.isfinite(high - low) or high - low > _WIDEST:
        raise _refused(key, box, "finite bounds, such as 0 .. 255 for uint8 or 0 .. 1 for floats")
    spec = ImageSpec(**size, channels=layout.channels)
    if (low >= 0.0 and 128.0 <= high <= 255.0) or low >= high:  # pixels already
        return PixelRule(layout, spec, 0.0, 1.0, exact=box.dtype == np.uint8)
    return PixelRule(layout, spec, low, 255.0 / (high - low), exact=False)


def _least(box: spaces.Box, bounds: tuple[float, float]) -> int:
    """Give the rows and columns from which ``box`` is an image."""
    if box.dtype == np.uint8:
        return _LEAST_SIDE
    if box.dtype == np.uint16:
        return _SMALL_SIDE
    if len(box.shape) == 2 and bounds not in _LIKE_PIXELS:
        return MAX_PIXELS + 1  # a table of numbers
    small = box.dtype.kind == "f" and len(box.shape) > 2 and bounds in _LIKE_PIXELS
    return _SMALL_SIDE if small and 4 not in (box.shape[0], box.shape[-1]) else _SIDE


def _refused(key: str, box: spaces.Box, wanted: str) -> SettingsError:
    return SettingsError(
        f"observation {key!r} looks like an image: expected {wanted}, got {said_space(box)}; "
        "give its space that form, or flatten it to at most 65536 numbers"
    )


def said_space(space: Any) -> str:
    """Describe ``space`` in one short line."""
    return shown(" ".join(str(space).split()), 120)
