"""What a dynamics must be able to do for the rest of the world model not to care which it is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from wm_core.world.latent import Latent


class Dynamics(Protocol):
    """A backbone with a prior and a posterior over its stochastic part.

    Noise comes in as uniforms in [0, 1): (..., S, K) for categorical latents.
    """

    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """``n`` latents of an agent that has seen nothing."""
        ...

    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the uniforms that one latent takes."""
        ...

    def observe(
        self, start: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        """(B, T) posteriors along data, from (B,) ``start``."""
        ...

    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        """(N,) posterior after one more observation: ``observe`` for one step."""
        ...

    def imagine_step(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """(N,) draw from the prior after ``action`` (N, A)."""
        ...

    def prior(self, deter: Tensor) -> Tensor:
        """(..., S, K) log-probabilities before seeing the observation, of ``deter`` (..., D)."""
        ...
