"""One gradient update: draw windows, look up where they start, learn, remember the new latents."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.replay.latents import LatentCache
from wm_core.replay.sampler import Sampler
from wm_core.training.checkpoint import plain, restored
from wm_core.world.base import Carry
from wm_core.world.latent import Latent, to_device
from wm_core.world.latent_dist import Categorical


class ContextMemory:
    """The carry of every step that was trained on, so that a window can start from its own.

    A carry too large to be stored for every step (a transformer's cache) is not remembered.

    Args:
        agent: whose carries they are.
        capacity: steps that are remembered.
    """

    def __init__(self, agent: AgentCore, capacity: int) -> None:
        self._dynamics = dynamics = agent.world.dynamics
        self._shapes = [tuple(c.shape[1:]) for c in dynamics.carry_of(agent.initial(1))]
        # one-hot stoch, which is always last, is kept as class numbers
        self._one_hot = isinstance(dynamics.latent_dist, Categorical)
        floats = self._shapes[:-1] if self._one_hot else self._shapes
        groups, classes = self._shapes[-1] if self._one_hot else (0, 1)
        self.cache = LatentCache(
            capacity if dynamics.remembers else 0,
            floats=sum(math.prod(shape) for shape in floats),
            groups=groups,
            classes=classes,
        )

    def get(self, keys: np.ndarray, device: torch.device) -> Carry | None:
        """(B, ...) carries of the steps ``keys`` (B,), zeros where unknown; None at all."""
        if not self.cache.capacity:
            return None
        floats, stoch, _ = self.cache.get(keys)
        sizes = [math.prod(s) for s in self._shapes]
        cuts = np.cumsum(sizes[: -1 if self._one_hot else None])[:-1]
        parts = [*np.split(floats, cuts, 1), *([stoch] if self._one_hot else [])]
        return tuple(
            torch.as_tensor(part, dtype=torch.float32, device=device).reshape(len(keys), *shape)
            for part, shape in zip(parts, self._shapes, strict=True)
        )

    def put(self, keys: np.ndarray, posterior: Latent) -> None:
        """Remember ``posterior`` (B, T) of the steps ``keys`` (B, T)."""
        if not self.cache.capacity:
            return
        carry = [c.flatten(0, 1).float().cpu().numpy() for c in self._dynamics.carry_of(posterior)]
        stoch = carry.pop() if self._one_hot else np.zeros((keys.size, 0, 1), np.float32)
        floats = np.concatenate([c.reshape(keys.size, -1) for c in carry], 1)
        self.cache.put(keys.reshape(-1), floats, stoch)


class Learner:
    """An agent with the replay that it learns from.

    Args:
        agent: already on its device.
        sampler: gives the windows.
        memory: where windows start from; a step that is not in there starts from zeros.
        generator: of the agent's noise, on its device.

    Deviates: DreamerV3's replay also holds the latents that the acting policy had. Robots do not
    send theirs, so a step that was never trained on has none.
    """

    def __init__(
        self, agent: AgentCore, sampler: Sampler, memory: ContextMemory, generator: torch.Generator
    ) -> None:
        self.agent, self.sampler, self.memory = agent, sampler, memory
        self.updates = 0
        self._generator = generator

    def update(self) -> dict[str, Tensor]:
        """Learn from one batch; returns the metrics, each (), still on the device."""
        drawn = self.sampler.sample()
        assert drawn.key is not None  # a sampler names its steps
        assert drawn.context_key is not None
        device = self._generator.device
        context = self.memory.get(drawn.context_key, device)
        metrics, posterior = self.agent.update(to_device(drawn, device), context, self._generator)
        self.memory.put(drawn.key, posterior)
        self.updates += 1
        return metrics

    def is_finite(self) -> bool:
        """Whether every weight is a number; costs one pass over them."""
        with torch.no_grad():
            sound = [p.isfinite().all() for p in self.agent.parameters()]
        return bool(torch.stack(sound).all())

    def state(self, *, max_latent_bytes: int) -> dict[str, Any]:
        """For a checkpoint: all of it in tensors and plain containers.

        Args:
            max_latent_bytes: a cache of latents larger than this is left out; the run then goes
                on from zeros where it would have gone on from a remembered latent.
        """
        keep = self.memory.cache.nbytes <= max_latent_bytes
        return {
            "updates": self.updates,
            "agent": self.agent.state_dict(),
            "sampler": plain(self.sampler.state()),
            "latents": plain(self.memory.cache.state()) if keep else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on exactly where ``state()`` was taken."""
        self.updates = int(state["updates"])
        self.agent.load_state_dict(state["agent"])
        self.sampler.load_state(restored(state["sampler"]))
        if state["latents"] is not None:
            self.memory.cache.load_state(restored(state["latents"]))
