"""Defines the batch: windows of experience as arrays, drawn by replay and learnt from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np

Array = TypeVar("Array")
Other = TypeVar("Other")


@dataclass(frozen=True, slots=True)
class Batch(Generic[Array]):
    """B windows of T steps, as arrays of NumPy or of a device."""

    obs: dict[str, Array]  #: images (B, T, H, W, C), vectors (B, T, n) float32
    prev_action: Array  #: (B, T, A) in [-1, 1], the action that led to ``obs``; 0 at ``is_first``
    reward: Array  #: (B, T) float32, arrived with ``obs``; 0 at ``is_first``
    is_first: Array  #: (B, T) bool
    is_last: Array  #: (B, T) bool
    is_terminal: Array  #: (B, T) bool
    key: Array | None = None  #: (B, T) int64: session number << 32 | index in the session
    context_key: Array | None = None  #: (B,) int64, of the step before the window; -1: none
    policy_version: Array | None = None  #: (B, T) int64, of the policy that acted; -1: none did
    is_intervention: Array | None = (
        None  #: (B, T) bool, a person or a safety rule chose the action
    )
    is_demonstration: Array | None = None  #: (B, T) bool, of the store of demonstrations

    def map(self, f: Callable[[Array], Other]) -> Batch[Other]:
        """Apply ``f`` to every array; one that is missing stays so."""
        rest: dict[str, Any] = {
            field.name: None if (value := getattr(self, field.name)) is None else f(value)
            for field in fields(self)
            if field.name != "obs"
        }
        return Batch(obs={key: f(value) for key, value in self.obs.items()}, **rest)

    def first(self, n: int) -> Batch[Array]:
        """Keep the first ``n`` steps of every window."""

        def cut(array: Any) -> Any:
            return array[:, :n] if array.ndim > 1 else array

        return self.map(cut)


def stacked(parts: Sequence[Batch[np.ndarray]]) -> Batch[np.ndarray]:
    """Join windows (T, ...) into a batch (B, T, ...); all hold the same arrays."""
    rest: dict[str, Any] = {
        field.name: np.stack([getattr(part, field.name) for part in parts])
        for field in fields(Batch)
        if field.name != "obs" and getattr(parts[0], field.name) is not None
    }
    obs = {key: np.stack([part.obs[key] for part in parts]) for key in parts[0].obs}
    return Batch(obs=obs, **rest)
