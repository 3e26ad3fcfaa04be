"""Follows ``metrics.jsonl`` of a run: returns of episodes, evaluations, and new versions.

Only what was appended is read, and what is kept is bounded: neighbours are joined when there are
too many, so that a run of any length takes the same memory and the same time to draw.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_core.contract.files import json_object

MOST_POINTS = 400  #: of each curve; beyond, neighbours are joined
_READ_BYTES = 4 << 20  # at one look; a long run is caught up with in several
_TAIL_BYTES = 64 << 20  # of a file that is met for the first time


@dataclass
class Point:
    """Returns around one moment of the training."""

    agent_steps: float
    mean: float
    low: float  #: of the interval of the mean in evaluations, else the lowest of the joined ones
    high: float
    joined: int = 1


@dataclass
class Curves:
    """What ``metrics.jsonl`` said so far."""

    episodes: list[Point] = field(default_factory=list)
    evaluations: list[Point] = field(default_factory=list)
    versions: list[tuple[float, int]] = field(default_factory=list)  #: (agent steps, version)
    last: dict[str, float] = field(default_factory=dict)  #: newest value of each number
    lines: int = 0


class ReturnsReader:
    """Reads ``metrics.jsonl`` as it grows.

    Args:
        path: of the file, which need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self.curves = path, Curves()
        self._at, self._inode, self._rest = 0, -1, b""
        self._version = -1.0

    def look(self) -> Curves:
        """Take in what was appended since the last look; a file that was replaced begins anew."""
        try:
            with self._path.open("rb") as file:
                about = os.fstat(file.fileno())
                if about.st_ino != self._inode or about.st_size < self._at:
                    self._begin(about)
                if about.st_size == self._at:
                    return self.curves
                file.seek(self._at)
                data = file.read(_READ_BYTES)
                self._at += len(data)
        except OSError:
            self._inode, self._at = -1, 0
            return self.curves
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _READ_BYTES:
            self._rest = b""
        for line in lines:
            self._take(json_object(line))
        return self.curves

    def _begin(self, about: os.stat_result) -> None:
        self.curves, self._version, self._rest = Curves(), -1.0, b""
        self._inode, self._at = about.st_ino, max(0, about.st_size - _TAIL_BYTES)

    def _take(self, line: dict[str, Any]) -> None:
        steps = number(line.get("agent_steps"))
        if steps is None:
            return
        curves = self.curves
        curves.lines += 1
        total = number(line.get("episode/return"))
        if total is not None:
            _add(curves.episodes, Point(steps, total, total, total))
        mean = number(line.get("eval/return"))
        if mean is not None:
            low, high = number(line.get("eval/low")), number(line.get("eval/high"))
            _add(curves.evaluations, Point(steps, mean, _or(low, mean), _or(high, mean)))
        version = number(line.get("published_version"))
        if version is not None and version > self._version:
            self._version = version
            curves.versions.append((steps, int(version)))
            if len(curves.versions) > MOST_POINTS:
                curves.versions[:] = curves.versions[::2]
        for name, value in list(line.items())[:200]:
            found = number(value)
            if found is not None and (name in curves.last or len(curves.last) < 200):
                curves.last[name[:64]] = found


def number(value: object) -> float | None:
    """``value`` as a finite number; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _or(value: float | None, other: float) -> float:
    return other if value is None else value


def _add(points: list[Point], point: Point) -> None:
    points.append(point)
    if len(points) > 2 * MOST_POINTS:
        points[:] = [_joined(*points[i : i + 2]) for i in range(0, len(points), 2)]


def _joined(a: Point, b: Point | None = None) -> Point:
    if b is None:
        return a
    joined = a.joined + b.joined
    mean = (a.mean * a.joined + b.mean * b.joined) / joined
    steps = (a.agent_steps * a.joined + b.agent_steps * b.joined) / joined
    return Point(steps, mean, min(a.low, b.low), max(a.high, b.high), joined)
