"""Mixtures of normals, one for each latent dimension: World Models predicts latents by them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_core.nn.blocks import Linear
from wm_core.nn.dists import normal_noise


class Mixture(NamedTuple):
    """Z independent mixtures of M normals; ``logits, mean, log_std`` are (..., Z, M)."""

    logits: Tensor
    mean: Tensor
    log_std: Tensor

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log-density (..., Z) in nats of ``value`` (..., Z), not summed."""
        z = (value.unsqueeze(-1) - self.mean) * torch.exp(-self.log_std)
        each = -0.5 * z.square() - self.log_std - 0.5 * math.log(2.0 * math.pi)
        return torch.logsumexp(torch.log_softmax(self.logits, -1) + each, -1)

    def expected(self) -> Tensor:
        """Compute the mean (..., Z) of the mixture."""
        return (torch.softmax(self.logits, -1) * self.mean).sum(-1)

    def sample(self, uniform: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
        """Sample (..., Z) by uniforms (..., Z, 2): one for the component, one for its noise.

        Gradients reach the chosen component's mean and deviation, not the choice.

        Args:
            uniform: (..., Z, 2) in [0, 1).
            temperature: above 1 makes samples less likely; logits are divided by it and the
                noise is multiplied by its square root.

        Source: World Models, arXiv:1803.10122, section 4 and appendix A.
        """
        below = torch.softmax(self.logits.detach() / temperature, -1).cumsum(-1)
        choice = (uniform[..., :1] >= below[..., :-1]).sum(-1, keepdim=True)
        parts = torch.arange(self.mean.shape[-1], device=self.mean.device)
        chosen = choice == parts
        zero = torch.zeros_like(self.mean)
        mean = torch.where(chosen, self.mean, zero).sum(-1)
        std = torch.where(chosen, torch.exp(self.log_std), zero).sum(-1)
        return mean + std * normal_noise(uniform[..., 1]) * temperature**0.5


class MixtureHead(nn.Module):
    """Maps (..., I) to a mixture for each of ``latents`` dimensions.

    Args:
        inputs: I, width of the input.
        latents: Z, dimensions that are predicted.
        components: M, normals per dimension.

    Source: World Models, arXiv:1803.10122, appendix A: mixture density network with 5 components.
    """

    def __init__(self, inputs: int, latents: int, components: int = 5) -> None:
        super().__init__()
        self.latents, self.components = latents, components
        self.linear = Linear(inputs, 3 * latents * components)

    def forward(self, x: Tensor) -> Mixture:
        flat = self.linear(x.reshape(-1, x.shape[-1])).float()
        parts = flat.reshape(*x.shape[:-1], 3, self.latents, self.components)
        return Mixture(*parts.unbind(-3))
