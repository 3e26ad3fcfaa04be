"""feat to the return that the actor will get from there, beside a slowly following copy."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from wm_core.config import BehaviorConfig
from wm_core.world.heads import TwoHotHead


class Critic(nn.Module):
    """A two-hot value head and its exponential average, which is never trained itself."""

    def __init__(self, feat: int, units: int, bins: int, config: BehaviorConfig) -> None:
        super().__init__()
        self.rate, self.slow_scale = config.slow_rate, config.slow_scale
        self.fast = TwoHotHead(feat, units, config.critic_layers, bins)
        self.slow = copy.deepcopy(self.fast).requires_grad_(False)

    @torch.no_grad()
    def follow(self, rate: float | None = None) -> None:
        """Move the slow copy towards the fast one; ``rate`` 1 makes them equal."""
        slow: list[Tensor] = list(self.slow.parameters())
        fast: list[Tensor] = list(self.fast.parameters())
        torch._foreach_lerp_(slow, fast, self.rate if rate is None else rate)

    def loss(self, logits: Tensor, feat: Tensor, target: Tensor) -> Tensor:
        """(...) cross entropy to ``target`` (...) and to the slow copy's value of ``feat``.

        Args:
            logits: (..., bins) of the fast head for ``feat``.
            feat: (..., F).
            target: (...) return.
        """
        with torch.no_grad():
            slow = self.slow.mean(feat)
        twohot = self.fast.twohot
        return twohot.loss(logits, target) + self.slow_scale * twohot.loss(logits, slow)
