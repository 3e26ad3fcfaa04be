"""Checks what only all of a store tells: actions, numbers and rewards that never change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from wm_core.contract.spec import Spec
from wm_core.recordings.care.findings import Finding
from wm_core.recordings.care.track import Track

_LEAST_STEPS = 50  #: of which something is said
_AT_BOUND, _NEARLY_ALWAYS = 0.99, 0.95
_NAMED = 8  #: numbers that are named of one sensor


@dataclass
class _Range:
    """The smallest and largest of each number of a sensor, (size,) each."""

    low: np.ndarray
    high: np.ndarray

    def widen(self, values: np.ndarray) -> None:
        """Take in ``values`` (n, size); what is not a number says nothing."""
        good = values[np.isfinite(values).all(1)]
        if len(good):
            self.low = np.minimum(self.low, good.min(0))
            self.high = np.maximum(self.high, good.max(0))

    @classmethod
    def of(cls, size: int) -> _Range:
        return cls(np.full(size, np.inf), np.full(size, -np.inf))


@dataclass
class _Robot:
    """What one robot with one spec recorded."""

    spec: Spec
    steps: int = 0
    action: _Range = field(default_factory=lambda: _Range.of(0))
    saturated: np.ndarray = field(default_factory=lambda: np.zeros(0))
    vectors: dict[str, _Range] = field(default_factory=dict)
    reward: _Range = field(default_factory=lambda: _Range.of(1))
    rewards: int = 0


class WholeStore:
    """Follows what never changes, robot by robot."""

    def __init__(self) -> None:
        self._robots: dict[tuple[str, str], _Robot] = {}

    def add(self, track: Track) -> None:
        """Take in the steps of a part of a session."""
        key = track.robot, track.spec.model_dump_json()
        robot = self._robots.get(key)
        if robot is None:
            size = track.spec.action.size
            robot = self._robots[key] = _Robot(
                track.spec, action=_Range.of(size), saturated=np.zeros(size),
                vectors={k: _Range.of(v.size) for k, v in track.spec.vectors.items()},
            )  # fmt: skip
        robot.steps += len(track)
        robot.action.widen(track.action)
        robot.saturated += (np.abs(track.action) >= _AT_BOUND).sum(0)
        for name, values in track.vectors.items():
            robot.vectors[name].widen(values)
        caused = track.reward[~track.is_first]
        robot.reward.widen(caused[:, None])
        robot.rewards += len(caused)

    def findings(self) -> Iterator[Finding]:
        """Say what never changed."""
        for (name, _), robot in self._robots.items():
            if robot.steps >= _LEAST_STEPS:
                yield from _constants(name, robot)

    @property
    def steps(self) -> int:
        return sum(robot.steps for robot in self._robots.values())


def _constants(name: str, robot: _Robot) -> Iterator[Finding]:
    action = robot.spec.action
    names = action.names if len(action.names) == action.size else ()
    still = robot.action.low == robot.action.high
    if not action.discrete:
        for i in np.flatnonzero(still).tolist():
            said = f"{_number(names, i)} is {robot.action.low[i]:.4g} in all {robot.steps} steps"
            yield Finding("constant_action", said, name)
        share = robot.saturated / robot.steps
        for i in np.flatnonzero((share >= _NEARLY_ALWAYS) & ~still).tolist():
            said = f"{_number(names, i)} is at a bound in {100 * share[i]:.3g} % of the steps"
            yield Finding("saturated_action", said, name)
    elif still.all():
        said = f"it is the same choice in all {robot.steps} steps"
        yield Finding("constant_action", said, name)
    for key, values in robot.vectors.items():
        fixed = np.flatnonzero(values.low == values.high).tolist()
        if fixed:
            listed = ", ".join(map(str, fixed[:_NAMED])) + (" ..." if len(fixed) > _NAMED else "")
            said = f"{key}: {len(fixed)} of {len(values.low)} numbers ({listed})"
            yield Finding("constant_number", said, name)
    if robot.rewards and robot.reward.low[0] == robot.reward.high[0]:
        said = f"all {robot.rewards} rewards are {robot.reward.low[0]:.4g}"
        yield Finding("constant_reward", said, name)


def _number(names: tuple[str, ...], i: int) -> str:
    return f"action {names[i]}" if names else f"action number {i}"
