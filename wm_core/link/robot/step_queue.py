"""Holds the steps that wait in memory for the disk, within a bound that a step gives way to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from wm_core.contract.step import Step
from wm_core.link.robot.spool_settings import Overflow


class StepQueue:
    """Is a bounded queue of numbered steps; its owner holds a lock around each call.

    Args:
        most: steps that may wait.
        overflow: which step gives way to a new one.
    """

    def __init__(self, most: int, overflow: Overflow) -> None:
        self._most, self._overflow = most, overflow
        self._steps: deque[tuple[int, Step]] = deque()

    def __len__(self) -> int:
        return len(self._steps)

    def put(self, number: int, step: Step) -> tuple[bool, int]:
        """Add a step.

        Returns:
            Whether it was taken, and how many earlier ones gave way to it.
        """
        dropped = 0
        if len(self._steps) >= self._most:
            if self._overflow in ("drop_newest", "pause_exploration"):
                return False, 0
            if not self._give_way(step):
                return False, 0
            dropped = 1
        self._steps.append((number, step))
        return True, dropped

    def take(self) -> list[tuple[int, Step]]:
        """Take every step, in order."""
        taken = list(self._steps)
        self._steps.clear()
        return taken

    def _give_way(self, step: Step) -> bool:
        """Remove the step that is worth least; False where that is ``step`` itself."""
        if self._overflow == "keep_valuable":
            for at, (_, waiting) in enumerate(self._steps):
                if not is_valuable(waiting):
                    del self._steps[at]
                    return True
            if not is_valuable(step):
                return False
        self._steps.popleft()
        return True


def is_valuable(step: Step) -> bool:
    """Tell whether a step holds an intervention, a reward or the end of an episode."""
    return bool(_valuable(step.is_intervention, step.is_last, step.is_terminal, step.reward))


def any_valuable(numbers: Mapping[str, np.ndarray]) -> bool:
    """Tell whether a step of a chunk is valuable, by its recorded ``numbers``, (n,) each."""
    intervention, reward = numbers["is_intervention"], numbers["reward"]
    return bool(_valuable(intervention, numbers["is_last"], numbers["is_terminal"], reward).any())


def _valuable(intervention: Any, last: Any, terminal: Any, reward: Any) -> Any:
    """Tell what is valuable of one step, or of each of (n,) steps."""
    return intervention | last | terminal | (reward != 0.0)
