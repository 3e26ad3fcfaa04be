"""Reads distances in metres from ``sensor_msgs/Range`` and ``sensor_msgs/LaserScan``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.robot.parts import LaserScanPart, RangePart
from wm_ros.sensors.source import Source

_TURN = 2 * math.pi


class Range(Source):
    """Hears a sensor of one distance; nothing seen is read as ``max_m``."""

    message, default_topic = "sensor_msgs/Range", "range"

    def decode(self, msg: Any, kind: Any) -> np.ndarray:
        assert isinstance(self.part, RangePart)
        seen, most = float(msg.range), self.part.max_m
        if seen == -math.inf:  # something is too near to be measured
            seen = float(msg.min_range)
        if not math.isfinite(seen) or seen > msg.max_range > 0.0:
            seen = most
        return np.array([min(seen, most)])


class LaserScan(Source):
    """Hears a laser scanner, reduced to a number of equal sectors.

    A sector is as far as its nearest reading, or the reading in its middle.  What was not seen
    (infinite, not a number, outside the scanner's range) is read as ``max_m``.
    """

    message, default_topic = "sensor_msgs/LaserScan", "scan"

    def __init__(self, name: str, topic: str = "", part: LaserScanPart | None = None) -> None:
        super().__init__(name, topic, part)
        self._of: tuple[float, ...] = ()  # the scan for which the next two were made
        self._order = self._starts = np.zeros(0, np.int64)

    def decode(self, msg: Any, kind: Any) -> np.ndarray:
        assert isinstance(self.part, LaserScanPart)
        count, most = len(msg.ranges), self.part.max_m
        shape = (float(msg.angle_min), float(msg.angle_increment), float(count))
        if shape != self._of:
            self._order, self._starts = _sectors(self.part, *shape[:2], count, self.name)
            self._of = shape
        seen = np.array(msg.ranges, np.float64)
        seen[seen == -math.inf] = msg.range_min
        with np.errstate(invalid="ignore"):
            unseen = ~np.isfinite(seen) | (seen < msg.range_min)
            unseen |= (seen > msg.range_max) if msg.range_max > 0.0 else False
        seen[unseen] = most
        nearest: np.ndarray = np.minimum.reduceat(seen[self._order], self._starts)
        return np.minimum(nearest, most)


def _sectors(
    part: LaserScanPart, first: float, step: float, count: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Sort the readings into sectors.

    Returns:
        The indices (n,) of readings, sector by sector, and where in them each sector begins,
        (beams,).

    Raises:
        SpecMismatch: for a scan that does not cover the sectors.
    """
    if not count or not (step and math.isfinite(step) and math.isfinite(first)):
        raise SpecMismatch(
            f"{what}: expected readings, got {count} with {step} rad between two of them"
        )
    low, high = sorted((first, first + (count - 1) * step))
    half = abs(step) / 2
    begin = low - half if part.from_rad is None else part.from_rad
    end = high + half if part.to_rad is None else part.to_rad
    width = (end - begin) / part.beams
    angles = first + step * np.arange(count)
    middles = begin + width * (np.arange(part.beams) + 0.5)
    nearest = _apart(angles[None, :], middles[:, None]).argmin(axis=1)
    edges = np.array([begin + half, end - half])
    covered = _apart(angles[None, :], edges[:, None]).min(axis=1) <= 2 * half
    gaps = _apart(angles[nearest], middles) > np.maximum(width / 2, half) * 1.01
    if not covered.all() or gaps.any():
        raise SpecMismatch(
            f"{what}: expected a scan that covers {begin:.3f} .. {end:.3f} rad, "
            f"got {low:.3f} .. {high:.3f} rad"
        )
    if part.reduce == "nearest":
        return nearest, np.arange(part.beams)
    within = [np.flatnonzero(_apart(angles, middle) <= width / 2) for middle in middles]
    chosen = [w if w.size else nearest[i : i + 1] for i, w in enumerate(within)]
    starts = np.cumsum([0, *(c.size for c in chosen[:-1])])
    return np.concatenate(chosen), starts


def _apart(angle: np.ndarray, other: Any) -> np.ndarray:
    """Tell how far two angles are from one another, 0 .. pi rad."""
    between = np.abs(angle - other) % _TURN
    return np.asarray(np.minimum(between, _TURN - between))
