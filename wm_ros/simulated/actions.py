"""Turns commands into elements of a task's action space, as a trainer does; no ROS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete

from wm_core.contract.errors import SettingsError


class TaskAction:
    """Describes what a task takes: numbers within a range, or an index for each of its choices.

    A choice that has a single option takes no part in a command.

    Args:
        space: the task's action space.
        about: the task's metadata: ``action_noop`` or ``action_home``.
        task: its name, for errors.

    Attributes:
        discrete: whether it takes choices.
        low: (n,) float32 least numbers of a command, in the task's units; of a choice 0.
        high: (n,) float32 greatest numbers of a command; of a choice its last index.
        home: (n,) float32 command at which the task rests.

    Raises:
        SettingsError: for a space of another kind, or one with nothing to choose between.
    """

    def __init__(self, space: Space[Any], about: Mapping[str, Any], task: str) -> None:
        self._space, self._shape = space, space.shape or ()
        self._dtype: Any = space.dtype
        self.discrete = isinstance(space, Discrete | MultiDiscrete | MultiBinary)
        if isinstance(space, Box):
            low, high = space.low.ravel(), space.high.ravel()
        elif self.discrete:
            high = np.ravel(_sizes_of(space)) - 1
            low = np.zeros_like(high)
        else:
            raise SettingsError(
                f"task {task!r}: expected a Box, or choices (Discrete, MultiDiscrete, "
                f"MultiBinary), got {space}"
            )
        self._free = low < high
        if not self._free.any():
            raise SettingsError(f"task {task!r}: {space} leaves nothing to choose between")
        home = np.array(about.get("action_noop" if self.discrete else "action_home", 0))
        home = np.broadcast_to(home.ravel() if home.ndim else home, low.shape)
        self.low, self.high, self.home = (
            values[self._free].astype(np.float32) for values in (low, high, home)
        )
        self.home = np.clip(self.home, self.low, self.high)

    def element(self, command: np.ndarray) -> Any:
        """Turn a ``command`` (n,), clipped to ``low`` .. ``high``, into an element of the space.

        Of a box of whole numbers each has an equal share of the range.
        """
        within = np.clip(command, self.low, self.high).astype(np.float64)
        if isinstance(self._space, Box) and self._dtype.kind in "iu":
            count = self.high - self.low + 1.0
            share = (within - self.low) / (self.high - self.low)
            within = self.low + np.minimum(np.floor(share * count), count - 1.0)
        elif self.discrete:
            within = np.rint(within)
        whole = np.zeros(self._free.size)
        whole[self._free] = within
        element = whole.reshape(self._shape).astype(self._dtype)
        element = element + getattr(self._space, "start", 0)
        return int(element) if isinstance(self._space, Discrete) else element


def _sizes_of(space: Any) -> np.ndarray:
    """Count what there is to choose from, for each choice of ``space``, (...) int64."""
    if isinstance(space, MultiBinary):
        return np.full(space.shape, 2, np.int64)
    return np.array(space.n if isinstance(space, Discrete) else space.nvec, np.int64)
