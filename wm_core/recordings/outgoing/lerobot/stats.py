"""Sums up columns of a LeRobotDataset, an episode or all of it, in bounded memory.

Least, largest, mean and deviation are exact.  Quantiles of numbers are those of an evenly spaced
sample; of images those of every level that their pixels have.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

QUANTILES = (0.01, 0.10, 0.50, 0.90, 0.99)
_SAMPLE = 1024  # rows that are kept for the quantiles, at most twice as many ...
_SAMPLE_NUMBERS = 1 << 20  # ... and fewer of long vectors
_WAITING_NUMBERS = 1 << 14  # that are summed up together
_SIDE = 150  # pixels of a side that an image is thinned to
_RGB_SCALE = 255.0


class Stats(Protocol):
    """Sums up one column."""

    def add(self, value: np.ndarray) -> None:
        """Take the value of one row: a number (1,), a vector (n,) or an image (H, W, C)."""

    def merge(self, other: Any) -> None:
        """Take everything that ``other``, of the same kind, has taken."""

    def result(self) -> dict[str, list]:
        """Give min, max, mean, std, count and quantiles, nested as LeRobot nests them."""


class NumberStats:
    """Sums up arrays (n,); NaN and infinity count for nothing.

    Args:
        size: n.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self._number = np.zeros(size)  # of finite values
        self._mean, self._square = np.zeros(size), np.zeros(size)
        self._low, self._high = np.full(size, np.inf), np.full(size, -np.inf)
        self._waiting: list[np.ndarray] = []  # rows that are summed up together
        self._most = max(1, _WAITING_NUMBERS // size)
        self._sample: list[np.ndarray] = []
        self._sample_rows = max(16, min(_SAMPLE, _SAMPLE_NUMBERS // size))
        self._stride = 1

    def add(self, value: np.ndarray) -> None:
        """Take one array (n,)."""
        self._waiting.append(np.asarray(value, np.float64).reshape(-1))
        if len(self._waiting) >= self._most:
            self._sum_up()

    def _sum_up(self) -> None:
        """Take the rows that wait."""
        if not self._waiting:
            return
        rows, self._waiting = np.stack(self._waiting), []
        first = -self.count % self._stride
        good = np.isfinite(rows)
        number = good.sum(0)
        mean = np.where(good, rows, 0.0).sum(0) / np.maximum(number, 1)
        square = (np.where(good, rows - mean, 0.0) ** 2).sum(0)
        low, high = np.where(good, rows, np.inf).min(0), np.where(good, rows, -np.inf).max(0)
        self._join(number, mean, square, low, high)
        self.count += len(rows)
        self._keep([row.copy() for row in rows[first :: self._stride]])

    def _join(self, *other: np.ndarray) -> None:
        """Take number, mean, square deviation, least and largest (n,) of other rows."""
        number, mean, square, low, high = other
        total = np.maximum(self._number + number, 1)
        apart = mean - self._mean
        self._square = self._square + square + apart**2 * self._number * number / total
        self._mean = self._mean + apart * number / total
        self._number = self._number + number
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)

    def merge(self, other: NumberStats) -> None:
        """Take what ``other`` has taken."""
        self._sum_up()
        other._sum_up()
        self._join(other._number, other._mean, other._square, other._low, other._high)
        self.count += other.count
        while self._stride < other._stride:
            self._thin()
        self._keep(other._sample[:: self._stride // other._stride])

    def result(self) -> dict[str, list]:
        """Give the sums; zeros where nothing was finite."""
        self._sum_up()
        seen = self._number > 0
        deviation = np.sqrt(self._square / np.maximum(self._number, 1))
        values = {
            "min": np.where(seen, self._low, 0.0),
            "max": np.where(seen, self._high, 0.0),
            "mean": np.where(seen, self._mean, 0.0),
            "std": deviation,
        }
        sample = np.stack(self._sample) if self._sample else np.zeros((1, len(seen)))
        sample = np.where(np.isfinite(sample), sample, values["mean"])
        for share, row in zip(QUANTILES, np.quantile(sample, QUANTILES, axis=0), strict=True):
            values[_key(share)] = row
        return {k: v.tolist() for k, v in values.items()} | {"count": [self.count]}

    def _keep(self, rows: list[np.ndarray]) -> None:
        self._sample += rows
        while len(self._sample) >= 2 * self._sample_rows:
            self._thin()

    def _thin(self) -> None:
        self._sample = self._sample[::2]
        self._stride *= 2


class ImageStats:
    """Sums up images (H, W, C) by how often each channel has each level.

    Args:
        channels: C.
        levels: 256, or 65536 for millimetres, which stay as they are; others become 0 .. 1.
    """

    def __init__(self, channels: int, levels: int) -> None:
        self.count = 0
        self._counts = np.zeros((channels, levels), np.int64)
        self._scale = _RGB_SCALE if levels == 256 else 1.0

    def add(self, value: np.ndarray) -> None:
        """Take one image (H, W, C), of which every pixel of a coarse grid is counted."""
        thin = value[:: -(-value.shape[0] // _SIDE), :: -(-value.shape[1] // _SIDE)]
        for channel, counts in enumerate(self._counts):
            counts += np.bincount(thin[..., channel].reshape(-1), minlength=len(counts))
        self.count += 1

    def merge(self, other: ImageStats) -> None:
        """Take what ``other`` has taken."""
        self._counts += other._counts
        self.count += other.count

    def result(self) -> dict[str, list]:
        """Give the sums, (C, 1, 1) each."""
        levels = np.arange(self._counts.shape[1])
        total = np.maximum(self._counts.sum(1), 1)
        mean = (self._counts * levels).sum(1) / total
        variance = (self._counts * (levels - mean[:, None]) ** 2).sum(1) / total
        there = self._counts > 0
        values = {
            "min": there.argmax(1).astype(float),
            "max": levels[-1] - there[:, ::-1].argmax(1).astype(float),
            "mean": mean,
            "std": np.sqrt(variance),
        }
        below = self._counts.cumsum(1) / total[:, None]
        for share in QUANTILES:
            values[_key(share)] = (below >= share).argmax(1).astype(float)
        nested = {k: (v / self._scale).reshape(-1, 1, 1).tolist() for k, v in values.items()}
        return nested | {"count": [self.count]}


def _key(share: float) -> str:
    return f"q{round(share * 100):02d}"
