"""Running statistics of values, by which losses and returns are scaled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.nn import joined


class PercentileRange(nn.Module):
    """Tracks the range between two percentiles; the scale is at least ``limit``.

    Args:
        rate: of the exponential average, which starts at zero and is not debiased.
        low: lower percentile in [0, 1].
        high: upper percentile in [0, 1].
        limit: smallest scale that is returned.

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
        """Add ``values`` (...) and return the scale ()."""
        every = joined.rows_of_all(values.detach().float())
        percentiles = torch.quantile(every.flatten(), self.at)
        self.range.lerp_(percentiles, self.rate)
        return self.scale()

    def scale(self) -> Tensor:
        """Compute the current scale (), at least ``limit``."""
        return (self.range[1] - self.range[0]).clamp_min(self.limit)


class RunningStd(nn.Module):
    """Tracks a running mean and standard deviation.

    Args:
        rate: of the exponential averages, which start at zero and are debiased.

    Source: DayDreamer (code), arXiv:2206.14176: advantages are normalised with decay 0.99.
    """

    def __init__(self, *, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.moments: Tensor
        self.weight: Tensor
        self.register_buffer("moments", torch.zeros(2))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def update(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add ``values`` (...) and return mean () and standard deviation ()."""
        flat = values.detach().float()
        moments = joined.mean(torch.stack([flat.mean(), flat.square().mean()]))
        self.moments.lerp_(moments, self.rate)
        self.weight.lerp_(torch.ones_like(self.weight), self.rate)
        mean, square = (self.moments / self.weight).unbind()
        return mean, (square - mean.square()).clamp_min(1e-8).sqrt()


class RunningVariance(nn.Module):
    """Tracks the variance of each element of a vector.

    Args:
        size: n, number of elements.
        rate: of the exponential averages, which start at zero and are debiased.
        low: smallest variance that is returned, for elements that hardly move.
    """

    def __init__(self, size: int, *, rate: float, low: float) -> None:
        super().__init__()
        self.rate, self.low = rate, low
        self.moments: Tensor
        self.weight: Tensor
        self.register_buffer("moments", torch.zeros(2, size))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def forward(self, values: Tensor) -> Tensor:
        """Add ``values`` (N, n) and return the variances (n,), at least ``low``."""
        flat = values.detach().float()
        moments = [joined.mean_of_rows(flat), joined.mean_of_rows(flat.square())]
        self.moments.lerp_(torch.stack(moments), self.rate)
        self.weight.lerp_(torch.ones_like(self.weight), self.rate)
        mean, square = self.moments / self.weight
        return (square - mean.square()).clamp_min(self.low)


class AdaptiveScale(nn.Module):
    """Adapts a factor by a tenth per update to keep a value near its target.

    Args:
        target: of the value; within a tenth of it the factor stays.
        low: smallest factor.
        high: largest factor.
        raise_when_low: grow the factor where the value is below the target (an entropy's bonus),
            or where it is above (a KL's loss).
        initial: factor at first.

    Source: DayDreamer (code), arXiv:2206.14176, adaptive KL and entropy scales.
    """

    def __init__(
        self, *, target: float, low: float, high: float, raise_when_low: bool, initial: float
    ) -> None:
        super().__init__()
        self.target, self.low, self.high = target, low, high
        self.raise_when_low = raise_when_low
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor(initial))

    @torch.no_grad()
    def update(self, value: Tensor) -> Tensor:
        """Return the current factor (), and adapt the next one to ``value`` ()."""
        now, value = self.scale.clone(), joined.mean(value.detach().float())
        below, above = value < 0.9 * self.target, value > 1.1 * self.target
        up, down = (below, above) if self.raise_when_low else (above, below)
        self.scale.mul_(torch.where(up, 1.1, torch.where(down, 1 / 1.1, 1.0)))
        self.scale.clamp_(self.low, self.high)
        return now
