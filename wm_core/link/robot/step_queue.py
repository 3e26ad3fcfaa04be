"""Holds the steps that wait in memory for the disk, within bounds that a step gives way to."""

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
        most_bytes: that their arrays may take.  A robot whose disk hangs must not
            run out of memory: the system would kill the node, which then sends no last command.
        overflow: which steps give way to a new one.
    """

    def __init__(self, most: int, most_bytes: int, overflow: Overflow) -> None:
        self._most, self._most_bytes, self._overflow = most, most_bytes, overflow
        self._steps: deque[tuple[int, Step]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def share(self) -> float:
        """Give how full it is, from 0 to 1, by the bound that is nearer."""
        return max(len(self._steps) / self._most, self._bytes / self._most_bytes)

    def put(self, number: int, step: Step) -> tuple[bool, int]:
        """Add a step.

        Returns:
            Whether it was taken, and how many earlier ones gave way to it.
        """
        size, dropped = bytes_of(step), 0
        if size > self._most_bytes:  # no other has to give way to what never fits
            return False, 0
        while len(self._steps) >= self._most or self._bytes + size > self._most_bytes:
            if self._overflow in ("drop_newest", "pause_exploration"):
                return False, 0
            if not self._give_way(step):
                return False, dropped
            dropped += 1
        self._steps.append((number, step))
        self._bytes += size
        return True, dropped

    def take(self) -> list[tuple[int, Step]]:
        """Take every step, in order."""
        taken = list(self._steps)
        self._steps.clear()
        self._bytes = 0
        return taken

    def _give_way(self, step: Step) -> bool:
        """Remove the step that is worth least; False where that is ``step`` itself."""
        at = 0
        if self._overflow == "keep_valuable":
            plain = (i for i, (_, waiting) in enumerate(self._steps) if not is_valuable(waiting))
            first = next(plain, None)
            if first is None and not is_valuable(step):
                return False
            at = first or 0
        self._bytes -= bytes_of(self._steps[at][1])
        del self._steps[at]
        return True


def bytes_of(step: Step) -> int:
    """Sum up what the arrays of a step take in memory."""
    arrays = (*step.obs.values(), step.action, step.requested_action)
    return sum(getattr(array, "nbytes", 0) for array in arrays)


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
