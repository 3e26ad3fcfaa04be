"""Keeps windows of demonstrations in every batch, from a store of their own that is only read."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Protocol

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.replay.batch import NO_CONTEXT
from wm_core.replay.sampler import Sampler
from wm_core.replay.selectors import Selector
from wm_core.store.reader import Store

#: added to the keys of demonstrations, whose sessions are numbered by themselves: session 2**30 on
DEMONSTRATION_KEY = 1 << 62


class WindowSource(Protocol):
    """Gives a learner its batches: a ``Sampler``, or several joined."""

    @property
    def selector(self) -> Selector:
        """Choose the windows that are not new."""
        ...

    def can_sample(self) -> bool:
        """Tell whether there is a window of every kind that a batch needs."""
        ...

    def sample(self) -> Batch[np.ndarray]:
        """Draw windows (B, T, ...)."""
        ...

    def take_losses(self, keys: np.ndarray, losses: np.ndarray) -> None:
        """Pass the losses (B,) of windows ``keys`` (B,) int64 to the selector."""
        ...

    def state(self) -> dict[str, Any]:
        """Give what it needs to go on exactly."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        ...

    def close(self) -> None:
        """Release what it holds."""
        ...


class WithDemonstrations:
    """Draws batches whose last windows are demonstrations.

    Args:
        own: draws the others from what the run collects or is given.
        demonstrations: draws them from ``store``.
        store: of the demonstrations; closed with this.
    """

    def __init__(self, own: Sampler, demonstrations: Sampler, store: Store) -> None:
        self._own, self._demonstrations, self._store = own, demonstrations, store

    @property
    def selector(self) -> Selector:
        return self._own.selector

    def can_sample(self) -> bool:
        return self._own.can_sample() and self._demonstrations.can_sample()

    def sample(self) -> Batch[np.ndarray]:
        shown = self._demonstrations.sample()
        assert shown.key is not None  # a sampler names its steps
        assert shown.context_key is not None
        known = shown.context_key != NO_CONTEXT
        shown = replace(
            shown,
            key=shown.key + DEMONSTRATION_KEY,
            context_key=np.where(known, shown.context_key + DEMONSTRATION_KEY, NO_CONTEXT),
            is_demonstration=np.ones_like(shown.is_first),
        )
        own = self._own.sample()
        return one_after_other(replace(own, is_demonstration=np.zeros_like(own.is_first)), shown)

    def take_losses(self, keys: np.ndarray, losses: np.ndarray) -> None:
        own = keys < DEMONSTRATION_KEY
        self._own.take_losses(keys[own], losses[own])

    def state(self) -> dict[str, Any]:
        return self._own.state() | {"demonstrations": self._demonstrations.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self._own.load_state(state)
        if state.get("demonstrations") is not None:  # else they come in with this resume
            self._demonstrations.load_state(state["demonstrations"])

    def close(self) -> None:
        self._own.close()
        self._demonstrations.close()
        self._store.close()


def one_after_other(one: Batch[np.ndarray], other: Batch[np.ndarray]) -> Batch[np.ndarray]:
    """Join windows (B, T, ...) of two batches, which hold the same arrays, to one."""
    rest: dict[str, Any] = {
        field.name: np.concatenate([getattr(one, field.name), getattr(other, field.name)])
        for field in fields(Batch)
        if field.name != "obs" and getattr(one, field.name) is not None
    }
    obs = {key: np.concatenate([values, other.obs[key]]) for key, values in one.obs.items()}
    return Batch(obs=obs, **rest)
