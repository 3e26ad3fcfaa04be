"""Heads that read feat: real numbers as two-hot categories, and the chance that life goes on."""

from __future__ import annotations

from torch import Tensor, nn

from wm_core.nn.blocks import MLP, Linear
from wm_core.nn.dists import TwoHot, bernoulli_loss


class TwoHotHead(nn.Module):
    """(..., F) feat to a real number with symexp two-hot targets; at first exactly 0."""

    def __init__(self, feat: int, units: int, layers: int, bins: int) -> None:
        super().__init__()
        self.layers = MLP(feat, units, layers)
        self.out = Linear(units, bins, scale=0.0)
        self.twohot = TwoHot(bins)

    def forward(self, feat: Tensor) -> Tensor:
        """(..., bins) logits."""
        return self.out(self.layers(feat)).float()

    def mean(self, feat: Tensor) -> Tensor:
        """(...) expected value."""
        return self.twohot.mean(self(feat))

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """(...) cross entropy to ``target`` (...)."""
        return self.twohot.loss(self(feat), target)


class ContHead(nn.Module):
    """(..., F) feat to the probability that the episode goes on from here."""

    def __init__(self, feat: int, units: int, layers: int) -> None:
        super().__init__()
        self.layers = MLP(feat, units, layers)
        self.out = Linear(units, 1)

    def forward(self, feat: Tensor) -> Tensor:
        """(...) logit."""
        return self.out(self.layers(feat)).float().squeeze(-1)

    def mean(self, feat: Tensor) -> Tensor:
        """(...) probability in [0, 1]."""
        return self(feat).sigmoid()

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """(...) cross entropy to ``target`` (...), a probability in [0, 1]."""
        return bernoulli_loss(self(feat), target)
