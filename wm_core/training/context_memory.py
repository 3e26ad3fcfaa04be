"""The learner's replay latents, so that a window can start from where the last one left off."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.replay.slots import Slots
from wm_core.world.base import Carry
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import Categorical

_UNKNOWN, _DISCARDED, _FIRST = 0, 1, 2  #: rows: zeros to read, a place to write, the ring


class ContextMemory:
    """Keeps the carry of every step that was trained on, on the agent's device.

    Numbers are kept in half precision and one-hot latents as class numbers, 2 D + S bytes a step;
    the room grows with what is kept.  A carry too large to be kept for every step (a
    transformer's cache) is not.

    Args:
        agent: whose carries they are; already on its device.
        capacity: steps that are kept; the oldest leave first.
    """

    def __init__(self, agent: AgentCore, capacity: int) -> None:
        self._dynamics = dynamics = agent.world.dynamics
        self._slots = Slots(capacity if dynamics.remembers else 0)
        shapes = [tuple(c.shape[1:]) for c in dynamics.carry_of(agent.initial(1))]
        self._groups, classes = 0, 0
        if isinstance(dynamics.latent_dist, Categorical):  # one-hot stoch, which is always last
            self._groups, classes = shapes.pop()
            if classes > 256:
                raise ValueError(f"replay latents hold at most 256 classes, got {classes}")
        self._shapes, self._sizes = shapes, [math.prod(shape) for shape in shapes]
        self._classes = torch.arange(classes, device=agent.device)
        self._floats = torch.zeros(_FIRST, sum(self._sizes), device=agent.device).half()
        self._stoch = torch.zeros(_FIRST, self._groups, device=agent.device).byte()

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept now."""
        return len(self) * (8 + 2 * self._floats.shape[1] + self._groups)

    def get(self, keys: np.ndarray) -> Carry | None:
        """Look up where windows start.

        Args:
            keys: (B,) int64 of the steps before the windows.

        Returns:
            (B, ...) carries; zeros for steps that were never trained on; None if the model keeps
            no replay latents.
        """
        if not self._slots.capacity:
            return None
        slots = self._slots.find(keys)
        rows = self._on_device(np.where(slots < 0, _UNKNOWN, slots + _FIRST))
        parts = self._floats.index_select(0, rows).float().split(self._sizes, 1)
        carry = [p.unflatten(1, s) for p, s in zip(parts, self._shapes, strict=True)]
        if self._groups:
            one_hot = self._stoch.index_select(0, rows).unsqueeze(-1) == self._classes
            carry.append((one_hot & (rows != _UNKNOWN)[:, None, None]).float())
        return tuple(carry)

    def put(self, keys: np.ndarray, posterior: Latent) -> None:
        """Keep ``posterior`` (B, T) of steps ``keys`` (B, T) int64; of equal ones, the last."""
        if self.keeps:
            self.put_packed(keys, *self.pack(posterior))

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._slots.capacity > 0

    @property
    def is_complete(self) -> bool:
        """Whether every step that was trained on is kept: none had to leave for room."""
        return len(self) < self._slots.capacity

    def pack(self, posterior: Latent) -> tuple[Tensor, Tensor]:
        """(B T, D) float16 and (B T, S) uint8, as which ``posterior`` (B, T) is kept."""
        carry = [c.flatten(0, 1) for c in self._dynamics.carry_of(posterior)]
        stoch = self._stoch.new_empty(len(carry[0]), 0)
        if self._groups:
            stoch = carry.pop().argmax(-1).byte()
        limit = torch.finfo(torch.float16).max
        floats = torch.cat([c.flatten(1).float() for c in carry], 1).clamp(-limit, limit)
        return floats.half(), stoch

    def put_packed(self, keys: np.ndarray, floats: Tensor, stoch: Tensor) -> None:
        """Keep what ``pack`` made, (N, D) and (N, S), of steps ``keys``, N int64 in all."""
        slots, last = self._slots.claim(keys.reshape(-1))
        self._grow(_FIRST + len(self))
        rows = self._on_device(np.where(slots < 0, _DISCARDED, slots + _FIRST))
        source = self._on_device(last)  # equal keys write the same values: no race decides
        self._stoch.index_copy_(0, rows, stoch.index_select(0, source))
        self._floats.index_copy_(0, rows, floats.index_select(0, source))

    def _on_device(self, rows: np.ndarray) -> Tensor:
        """(N,) ``rows`` as an index on the device."""
        return torch.from_numpy(rows).to(self._floats.device, non_blocking=True)

    def _grow(self, rows: int) -> None:
        """Make room for ``rows``, or for twice as many as there were."""
        more = max(rows, min(2 * len(self._floats), _FIRST + self._slots.capacity))
        if rows > len(self._floats):
            for name in ("_floats", "_stoch"):
                held = getattr(self, name)
                grown = held.new_zeros(more, held.shape[1])
                grown[: len(held)] = held
                setattr(self, name, grown)

    def state(self) -> dict[str, Any]:
        """Everything that is kept, oldest first: keys (N,), floats (N, D), stoch (N, S)."""
        keys, slots = self._slots.oldest_first()
        rows = self._on_device(slots + _FIRST)
        floats, stoch = (x[rows].cpu().numpy() for x in (self._floats, self._stoch))
        return {"keys": keys, "floats": floats, "stoch": stoch}

    def load_state(self, state: dict[str, Any]) -> None:
        """Keep exactly what ``state`` holds; the newest of it where that is too much."""
        keep = slice(max(0, len(state["keys"]) - self._slots.capacity), None)
        keys = np.asarray(state["keys"][keep], np.int64)
        self._slots.load(keys)
        self._grow(_FIRST + len(keys))
        for held, name in ((self._floats, "floats"), (self._stoch, "stoch")):
            held[_FIRST : _FIRST + len(keys)] = torch.as_tensor(state[name][keep])
