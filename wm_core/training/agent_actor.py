"""Acts with the training network itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from wm_core.contract.spec import Obs
from wm_core.training.exploration import PinkNoise


class AgentActor:
    """Acts with the training network itself, which needs no export.

    Args:
        agent: an ``agents.agent.AgentCore``.
        generator: draws the noise of latents and actions, on the agent's device; several draw for
            one environment each.
        mean: take the mean of the actions instead of a sample, as evaluations do.
        version: recorded with every step.
        noise: what the actions are drawn from; None: the generator, anew at every step.
    """

    def __init__(
        self,
        agent: Any,
        generator: torch.Generator | Sequence[torch.Generator],
        *,
        mean: bool = False,
        version: int = -1,
        noise: PinkNoise | None = None,
    ) -> None:
        self._agent, self._generator, self._noise = agent, generator, noise
        self._carry: Any = None
        self.mean, self.version = mean, version

    @torch.no_grad()
    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        device = self._agent.device
        if self._carry is None:
            self._carry = self._agent.initial(len(is_first))
        more: dict[str, Any] = {}
        if self._noise is not None:
            more["noise"] = torch.as_tensor(self._noise.uniforms(is_first), device=device)
        action, self._carry = self._agent.act(
            {k: torch.as_tensor(v, device=device) for k, v in obs.items()},
            self._carry,
            torch.as_tensor(prev_action, device=device),
            torch.as_tensor(is_first, device=device),
            mean=self.mean,
            generator=self._generator,
            **more,
        )
        return action.float().cpu().numpy()
