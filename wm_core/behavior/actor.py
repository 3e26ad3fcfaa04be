"""feat to a distribution over actions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.config import BehaviorConfig
from wm_core.nn.blocks import MLP, Linear
from wm_core.nn.dists import Normal


class Actor(nn.Module):
    """(..., F) feat to a normal with mean in [-1, 1] and std in [min_std, max_std].

    Draws may lie outside [-1, 1]: their log-probability is that of the draw, the dynamics and the
    robot see it clipped.

    Source: DreamerV3 (Nature code): std = (max - min) * sigmoid(x + 2) + min.
    """

    def __init__(self, feat: int, action: int, units: int, config: BehaviorConfig) -> None:
        super().__init__()
        self.action_size = action
        self.min_std, self.max_std = config.min_std, config.max_std
        self.layers = MLP(feat, units, config.actor_layers)
        self.mean = Linear(units, action, scale=0.01)
        self.std = Linear(units, action, scale=0.01)

    def dist(self, feat: Tensor) -> Normal:
        """(..., A) mean and std of ``feat`` (..., F)."""
        x = self.layers(feat)
        mean = torch.tanh(self.mean(x).float())
        spread = torch.sigmoid(self.std(x).float() + 2.0)
        return Normal(mean, (self.max_std - self.min_std) * spread + self.min_std)

    def forward(self, feat: Tensor) -> Normal:
        return self.dist(feat)
