"""The two kinds of stochastic latents, behind one interface.

A distribution is one tensor ``params`` with two trailing axes: log-probabilities (S, K) of
categorical latents, or mean and std (2, Z) of Gaussian ones.  Draws are functions of uniforms.
"""

from __future__ import annotations

import math
from typing import Protocol

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
from wm_core.world.settings import WorldConfig


class Space(Protocol):
    """What the rest of the world model needs to know of a kind of latents."""

    shape: tuple[int, ...]  #: of stoch, and of the uniforms that one draw takes
    size: int  #: length of the flat stoch
    width: int  #: of the raw numbers that ``params`` reads

    def params(self, raw: Tensor) -> Tensor:
        """(..., ., .) distribution that a network's raw numbers (..., width) mean."""
        ...

    def noise(self, uniform: Tensor) -> Tensor:
        """(..., *shape) what ``sample`` takes, of uniforms (..., *shape)."""
        ...

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """(..., *shape) draw; gradients reach the distribution."""
        ...

    def heat(self, params: Tensor, temperature: float) -> Tensor:
        """The distribution (..., ., .) made more surprising by a temperature above 1."""
        ...

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        """(...) KL(p || q) in nats."""
        ...

    def unit(self, params: Tensor) -> Tensor:
        """(..., ., .) the distribution that knows nothing: uniform, or a unit normal."""
        ...


class Categorical:
    """S groups of K classes, one-hot (..., S, K).

    Source: DreamerV2, arXiv:2010.02193, section 2.1; unimix: DreamerV3, arXiv:2301.04104.
    """

    def __init__(self, groups: int, classes: int, unimix: float) -> None:
        self.shape: tuple[int, ...] = (groups, classes)
        self.unimix = unimix
        self.size = self.width = groups * classes

    def params(self, raw: Tensor) -> Tensor:
        return unimix_log_probs(raw.unflatten(-1, self.shape), self.unimix)

    def noise(self, uniform: Tensor) -> Tensor:
        return race_weights(uniform)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        return sample_onehot(params.exp(), noise)

    def heat(self, params: Tensor, temperature: float) -> Tensor:
        return torch.log_softmax(params / temperature, -1)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        return categorical_kl(p, q)

    def unit(self, params: Tensor) -> Tensor:
        return torch.full_like(params, -math.log(self.shape[1]))

    def entropy(self, params: Tensor) -> Tensor:
        """(...) mean entropy of the groups of ``params`` (..., S, K), a share of the largest."""
        return -(params.exp() * params).sum(-1).mean(-1) / math.log(self.shape[1])


class Gaussian:
    """Z independent normals (..., Z).

    Source: Dreamer, arXiv:1912.01603, appendix A: std = softplus(x) + min_std.
    """

    def __init__(self, size: int, min_std: float) -> None:
        self.shape: tuple[int, ...] = (size,)
        self.size, self.width, self.min_std = size, 2 * size, min_std

    def params(self, raw: Tensor) -> Tensor:
        mean, spread = raw.float().chunk(2, -1)
        return torch.stack([mean, F.softplus(spread) + self.min_std], -2)

    def noise(self, uniform: Tensor) -> Tensor:
        return normal_noise(uniform)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        mean, std = params.unbind(-2)
        return mean + std * noise

    def heat(self, params: Tensor, temperature: float) -> Tensor:
        mean, std = params.unbind(-2)
        return torch.stack([mean, std * temperature**0.5], -2)

    def kl(self, p: Tensor, q: Tensor) -> Tensor:
        return normal_kl(Normal(*p.unbind(-2)), Normal(*q.unbind(-2)))

    def unit(self, params: Tensor) -> Tensor:
        mean, std = torch.zeros_like(params), torch.ones_like(params)
        return torch.stack([mean[..., 0, :], std[..., 0, :]], -2)


def make_space(config: WorldConfig) -> Categorical | Gaussian:
    """The latents that ``config`` names."""
    if config.latent == "gaussian":
        return Gaussian(config.gaussians, config.latent_min_std)
    return Categorical(config.groups, config.classes, config.unimix)
