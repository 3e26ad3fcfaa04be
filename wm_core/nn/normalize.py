"""Running statistics that scale what they see."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PercentileRange(nn.Module):
    """The running range between two percentiles; what is smaller than ``limit`` counts as it.

    Args:
        rate: of the exponential average, which starts at zero and is not debiased.
        low: lower percentile in [0, 1].
        high: upper percentile in [0, 1].
        limit: smallest range that is returned.

    Source: DreamerV3, arXiv:2301.04104, return normalisation.
    """

    def __init__(self, *, rate: float, low: float, high: float, limit: float) -> None:
        super().__init__()
        self.rate, self.limit = rate, limit
        self.at: Tensor
        self.range: Tensor
        self.register_buffer("at", torch.tensor([low, high]), persistent=False)
        self.register_buffer("range", torch.zeros(2))

    @torch.no_grad()
    def update(self, values: Tensor) -> Tensor:
        """() scale after taking in ``values`` (...), never below ``limit``."""
        seen = torch.quantile(values.detach().float().flatten(), self.at)
        self.range.lerp_(seen, self.rate)
        return self.scale()

    def scale(self) -> Tensor:
        """() current scale, never below ``limit``."""
        return (self.range[1] - self.range[0]).clamp_min(self.limit)
