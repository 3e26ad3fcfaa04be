"""One gradient update: draw windows, look up where they start, learn, remember the new latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wm_core.replay.latents import LatentCache
from wm_core.replay.sampler import Sampler
from wm_core.train.checkpoint import plain, restored
from wm_core.world.latent import TorchBatch


class Learner:
    """An agent with the replay that it learns from.

    Args:
        agent: what ``wm_core.agents.registry`` makes; already on its device.
        sampler: gives the windows.
        latents: the posterior of every step that was trained on, so that a window can start from
            its true context; a step that is not in there starts from zeros.
        generator: of the agent's noise, on its device.

    Deviates: DreamerV3's replay also holds the latents that the acting policy had. Robots do not
    send theirs, so a step that was never trained on has none.
    """

    def __init__(
        self, agent: Any, sampler: Sampler, latents: LatentCache, generator: torch.Generator
    ) -> None:
        self.agent, self.sampler, self.latents = agent, sampler, latents
        self.updates = 0
        self._generator = generator

    def update(self) -> dict[str, Tensor]:
        """Learn from one batch; returns the metrics, each (), still on the device."""
        drawn = self.sampler.sample()
        deter, stoch, _ = self.latents.get(drawn.context_key)
        device = self._generator.device
        context = (
            torch.as_tensor(deter, dtype=torch.float32, device=device),
            torch.as_tensor(stoch, dtype=torch.float32, device=device),
        )
        batch = TorchBatch.of(drawn, device)
        metrics, posterior = self.agent.update(batch, context, self._generator)
        self.latents.put(
            drawn.key.reshape(-1),
            posterior.deter.flatten(0, 1).float().cpu().numpy(),
            posterior.stoch.flatten(0, 1).float().cpu().numpy(),
        )
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
        keep = self.latents.nbytes <= max_latent_bytes
        return {
            "updates": self.updates,
            "agent": self.agent.state_dict(),
            "sampler": plain(self.sampler.state()),
            "latents": plain(self.latents.state()) if keep else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on exactly where ``state()`` was taken."""
        self.updates = int(state["updates"])
        self.agent.load_state_dict(state["agent"])
        self.sampler.load_state(restored(state["sampler"]))
        if state["latents"] is not None:
            self.latents.load_state(restored(state["latents"]))
