"""The families of stochastic latents, categorical and Gaussian, behind one interface.

A distribution is one tensor ``params`` with two trailing axes: log-probabilities (S, K) of
categorical latents, or mean and std (2, Z) of Gaussian ones.  Draws are functions of uniforms.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wm_core.nn.dists import (
    Normal,
    categorical_kl,
    normal_kl,
    normal_noise,
    race_weights,
    sample_onehot,
    unimix_log_probs,
)
from wm_core.world.part_settings import CategoricalConfig, GaussianConfig


class LatentDist(Protocol):
    """What a family of latent distributions offers to the rest of the world model."""

    shape: tuple[int, ...]  #: shape of stoch, and of the uniforms that one draw takes
    size: int  #: length of the flat stoch
    width: int  #: length of the raw numbers that ``params`` reads

    def params(self, raw: Tensor) -> Tensor:
        """(..., ., .) parameters of the distribution, from a network's output (..., width)."""
        ...

    def noise(self, uniform: Tensor) -> Tensor:
        """(..., *shape) noise that ``sample`` takes, from uniforms (..., *shape) in [0, 1)."""
        ...

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """(..., *shape) sample of ``params`` (..., ., .); gradients reach the parameters."""
        ...

    def with_temperature(self, params: Tensor, temperature: float) -> Tensor:
        """(..., ., .) ``params`` of the same shape, more random for a temperature above 1."""
        ...

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """(...) KL(p || q) in nats, of parameters (..., ., .)."""
        ...

    def unit(self, params: Tensor) -> Tensor:
        """(..., ., .) parameters of the reference distribution: uniform, or a unit normal."""
        ...


def acting_uniform(uniform: Tensor, acting: str) -> Tensor:
    """(...) uniforms that decide a latent while acting: those given, or all 0.5 for the mode.

    By 0.5 a categorical's likeliest class wins, and a Gaussian gives its mean.  Written as a
    clamp, so that an exported graph keeps its input.

    Args:
        uniform: (...) in [0, 1).
        acting: ``draw`` or ``mode``, as ``WorldConfig.acting`` says.
    """
    return uniform.clamp(0.5, 0.5) if acting == "mode" else uniform


class Categorical:
    """S groups of K classes, one-hot (..., S, K).

    Source: DreamerV2, arXiv:2010.02193, section 2.1; unimix: DreamerV3, arXiv:2301.04104.
    """

    def __init__(self, config: CategoricalConfig) -> None:
        self.shape: tuple[int, ...] = (config.groups, config.classes)
        self.unimix = config.unimix
        self.size = self.width = config.stoch_size

    def params(self, raw: Tensor) -> Tensor:
        return unimix_log_probs(raw.unflatten(-1, self.shape), self.unimix)

    def noise(self, uniform: Tensor) -> Tensor:
        return race_weights(uniform)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return sample_onehot(params.exp(), noise)

    def with_temperature(self, params: Tensor, temperature: float) -> Tensor:
        return torch.log_softmax(params / temperature, -1)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        return categorical_kl(p, q)

    def unit(self, params: Tensor) -> Tensor:
        return torch.full_like(params, -math.log(self.shape[1]))

    def entropy(self, params: Tensor) -> Tensor:
        """(...) mean entropy of the groups of ``params`` (..., S, K), over the largest one."""
        return -(params.exp() * params).sum(-1).mean(-1) / math.log(self.shape[1])


class Gaussian:
    """Z independent normals (..., Z).

    Source: Dreamer, arXiv:1912.01603, appendix A: std = softplus(x) + min_std.
    """

    def __init__(self, config: GaussianConfig) -> None:
        self.shape: tuple[int, ...] = (config.size,)
        self.size, self.width, self.min_std = config.size, 2 * config.size, config.min_std

    def params(self, raw: Tensor) -> Tensor:
        mean, spread = raw.float().chunk(2, -1)
        return torch.stack([mean, F.softplus(spread) + self.min_std], -2)

    def noise(self, uniform: Tensor) -> Tensor:
        return normal_noise(uniform)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        mean, std = params.unbind(-2)
        return mean + std * noise

    def with_temperature(self, params: Tensor, temperature: float) -> Tensor:
        mean, std = params.unbind(-2)
        return torch.stack([mean, std * temperature**0.5], -2)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        return normal_kl(Normal(*p.unbind(-2)), Normal(*q.unbind(-2)))

    def unit(self, params: Tensor) -> Tensor:
        mean = torch.zeros_like(params[..., 0, :])
        return torch.stack([mean, torch.ones_like(mean)], -2)


if TYPE_CHECKING:  # mypy holds each family to the protocol
    _: tuple[type[LatentDist], ...] = (Categorical, Gaussian)
