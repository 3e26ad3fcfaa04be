"""The learner draws windows, looks up where they start, updates the agent, keeps the latents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.agents.captured import CapturedUpdate
from wm_core.replay.demonstrations import WindowSource
from wm_core.training.checkpoint import plain, restored
from wm_core.training.context_memory import ContextMemory
from wm_core.world.latent import to_device


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
        self,
        agent: AgentCore,
        sampler: WindowSource,
        memory: ContextMemory,
        generator: torch.Generator,
    ) -> None:
        self.agent, self.sampler, self.memory = agent, sampler, memory
        self.updates = 0
        self._generator = generator
        self._captured = captured_update(agent)
        self._trained: tuple[np.ndarray, Tensor] | None = None  # windows and (B,) their losses

    def update(self) -> dict[str, Tensor]:
        """Learn from one batch; returns the metrics, each (), still on the device."""
        self._pass_losses()
        windows = self.sampler.sample()
        assert windows.key is not None  # a sampler names its steps
        assert windows.context_key is not None
        context = self.memory.get(windows.context_key)
        batch = to_device(windows, self._generator.device)
        update = self._captured or self.agent.update
        metrics, posterior = update(batch, context, self._generator)
        self.memory.put(windows.key, posterior)
        if self.sampler.selector.wants_losses:
            self._trained = windows.key[:, 0], self.agent.window_loss(batch, posterior)
        self.updates += 1
        return metrics

    def take_cpu_s(self) -> float:
        """CPU seconds that other processes have used for its updates since the last call."""
        fitness = self.agent.behavior.fitness
        return 0.0 if fitness is None else fitness.take_cpu_s()

    def close(self) -> None:
        """Release what threads and other processes hold for it; a second call does nothing."""
        fitness = self.agent.behavior.fitness
        try:
            self.sampler.close()
        finally:
            if fitness is not None:
                fitness.close()

    def _pass_losses(self) -> None:
        """Hand the losses of the previous update to the selector, when they are long computed."""
        if self._trained is not None:
            keys, losses = self._trained
            self.sampler.take_losses(keys, losses.cpu().numpy())
            self._trained = None

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
        self._pass_losses()
        keep = self.memory.nbytes <= max_latent_bytes
        return {
            "updates": self.updates,
            "agent": self.agent.state_dict(),
            "sampler": plain(self.sampler.state()),
            "latents": plain(self.memory.state()) if keep else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on exactly where ``state()`` was taken."""
        self.updates = int(state["updates"])
        self.agent.load_state_dict(state["agent"])
        if self._captured is not None:
            self._captured.forget()
        self.sampler.load_state(restored(state["sampler"]))
        if state["latents"] is not None:
            self.memory.load_state(restored(state["latents"]))


def captured_update(agent: AgentCore) -> CapturedUpdate | None:
    """Make what records the updates of ``agent``; None where they are to stay as they are.

    A search on the host cannot be recorded, and CPUs have no graphs.
    """
    wanted = agent.config.train.graph == "auto" and agent.device.type == "cuda"
    if not wanted or agent.config.behavior.learner == "evolution":
        return None
    return CapturedUpdate(agent)
