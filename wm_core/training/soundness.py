"""Keeps numbers that are not finite away from policies and environments.

An environment is recorded as it is: a step whose observation is not usable is stored, marked
invalid and not learnt from.  Who acts sees the last usable numbers instead, so that a sensor that
fails for a moment costs a step and not the memory.  An action that is not finite is never sent:
the command that stops the robot takes its place, and the actor begins anew.
"""

from __future__ import annotations

import numpy as np

from wm_core.contract.spec import ActionSpec, Obs
from wm_core.contract.step import MAX_MAGNITUDE


class UsableSenses:
    """Gives the observations of one environment as an actor may see them."""

    def __init__(self) -> None:
        self._seen: Obs = {}
        self.confused = False  #: the last action was not finite: the actor has to begin anew

    def of(self, obs: Obs, *, is_first: bool) -> Obs:
        """Give ``obs`` with the last usable number in place of each that is not.

        Args:
            obs: images (H, W, C) and vectors (n,); not changed.
            is_first: an episode begins: what is not usable becomes zero.
        """
        before = {} if is_first else self._seen
        self._seen = {key: _sound(value, before.get(key)) for key, value in obs.items()}
        return self._seen

    def heard(self, action: np.ndarray) -> None:
        """Take note of the actor's answer (A,)."""
        self.confused = not np.isfinite(action).all()


def _sound(value: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """(...) ``value`` with numbers of ``before`` (...), or zeros, where it is not usable."""
    if value.dtype.kind != "f":
        return value
    good = np.abs(value) <= MAX_MAGNITUDE  # False for NaN
    if good.all():
        return value
    return np.where(good, value, np.zeros_like(value) if before is None else before)


def sendable(action: np.ndarray, spec: ActionSpec) -> np.ndarray:
    """Give ``action`` (A,), or the one that stops the robot where that is not finite."""
    if np.isfinite(action).all():
        return action
    return spec.from_physical(spec.zero_command)
