"""The learner's memory of latents, so that a window can start from where the last one left off."""

from __future__ import annotations

from typing import Any

import numpy as np


class LatentCache:
    """A ring of posterior latents by the key of their step; the oldest entries leave first.

    Held in half precision and as class numbers, 2 D + S bytes each.

    Args:
        capacity: steps that are remembered; 0 remembers nothing.
        floats: D, real numbers of a latent.
        groups: S, one-hot groups of a latent; 0 for none.
        classes: K, at most 256.
    """

    def __init__(self, capacity: int, *, floats: int, groups: int, classes: int) -> None:
        if classes > 256:
            raise ValueError(f"expected at most 256 classes, got {classes}")
        self.capacity, self.classes = capacity, classes
        self._slots: dict[int, int] = {}
        self._keys = np.full(capacity, -1, np.int64)
        self._floats = np.zeros((capacity, floats), np.float16)  # memory is taken when written
        self._stoch = np.zeros((capacity, groups), np.uint8)
        self._next = 0

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered now."""
        return len(self._slots) * (8 + 2 * self._floats.shape[1] + self._stoch.shape[1])

    def put(self, keys: np.ndarray, floats: np.ndarray, stoch: np.ndarray) -> None:
        """Remember latents; of a key that comes twice, the last.

        Args:
            keys: (N,) int64, of the steps; negative ones are passed over.
            floats: (N, D) float.
            stoch: (N, S, K) one-hot.
        """
        if not self.capacity:
            return
        kept = np.flatnonzero(keys >= 0)[-self.capacity :]
        slots = np.array([self._slot(key) for key in keys[kept].tolist()], np.int64)
        limit = np.finfo(np.float16).max
        self._floats[slots] = np.clip(floats[kept], -limit, limit)
        self._stoch[slots] = stoch[kept].argmax(-1)

    def _slot(self, key: int) -> int:
        """Where ``key`` lies, or a place for it."""
        slot = self._slots.get(key)
        if slot is None:
            slot, self._next = self._next, (self._next + 1) % self.capacity
            self._slots.pop(int(self._keys[slot]), None)
            self._slots[key] = slot
            self._keys[slot] = key
        return slot

    def get(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What is remembered of ``keys`` (N,) int64.

        Returns:
            floats (N, D), stoch (N, S, K) one-hot, and (N,) bool: remembered; zeros where not.
        """
        slots = np.array([self._slots.get(key, -1) for key in keys.tolist()], np.int64)
        found = slots >= 0
        floats = np.zeros((len(keys), self._floats.shape[1]), np.float32)
        stoch = np.zeros((len(keys), self._stoch.shape[1], self.classes), np.float32)
        floats[found] = self._floats[slots[found]]
        ids = self._stoch[slots[found]].astype(np.int64)
        stoch[found] = np.eye(self.classes, dtype=np.float32)[ids]
        return floats, stoch, found

    def state(self) -> dict[str, Any]:
        """Everything remembered, oldest first: keys (N,), floats (N, D), stoch (N, S)."""
        order = (np.arange(self.capacity) + self._next) % max(self.capacity, 1)
        order = order[self._keys[order] >= 0]
        return {
            "keys": self._keys[order],
            "floats": self._floats[order],
            "stoch": self._stoch[order],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Remember exactly what ``state`` holds, the newest first if there is too much."""
        keep = slice(max(0, len(state["keys"]) - self.capacity), None)
        keys = np.asarray(state["keys"][keep], np.int64)
        self._slots = {key: slot for slot, key in enumerate(keys.tolist())}
        self._keys[:] = -1
        self._keys[: len(keys)] = keys
        self._floats[: len(keys)] = state["floats"][keep]
        self._stoch[: len(keys)] = state["stoch"][keep]
        self._next = len(keys) % self.capacity if self.capacity else 0
