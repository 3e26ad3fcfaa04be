"""What a dynamics must be able to do for the rest of the world model not to care which it is."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from wm_core.world.latent import Latent
from wm_core.world.prior import Prior
from wm_core.world.space import Space

Carry = tuple[Tensor, ...]


class Dynamics(Protocol):
    """A backbone with a prior and a posterior over its stochastic part.

    Noise comes in as uniforms in [0, 1).  A carry is what acting must keep between two steps, as
    tensors (N, ...) in the order of ``carry_names``; zeros are the carry of an agent that has
    seen nothing.
    """

    space: Space  #: of stoch
    prior: Prior  #: from deter to what will be seen
    carry_names: tuple[str, ...]
    representation: tuple[nn.Module, ...]  #: modules that learn to encode, not to predict
    remembers: bool  #: whether a carry is small enough to be stored for every step of replay

    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """(n,) latents of an agent that has seen nothing."""
        ...

    def carry_of(self, latent: Latent) -> Carry:
        """What of ``latent`` (N,) the next step needs; of (B, T) too, where it remembers."""
        ...

    def latent_of(self, carry: Carry) -> Latent:
        """(N,) a latent from which the next step can be taken."""
        ...

    def observe(
        self,
        start: Latent,
        prev_action: Tensor,
        embed: Tensor,
        is_first: Tensor,
        uniform: Tensor,
        reward: Tensor,
        generator: torch.Generator | None = None,
    ) -> Latent:
        """(B, T) posteriors along data.

        Args:
            start: (B,) latent of the step before the first; ignored where ``is_first``.
            prev_action: (B, T, A) action that led to each step.
            embed: (B, T, E).
            is_first: (B, T) bool; the past is forgotten there.
            uniform: (B, T, *space.shape) in [0, 1).
            reward: (B, T) that arrived with each step; read by dynamics with reward tokens.
            generator: decides the dropout; None drops nothing.
        """
        ...

    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        """(N,) posterior after one more observation: ``observe`` for one step."""
        ...

    def starts(self, posterior: Latent, times: Tensor) -> Latent:
        """(B * M,) latents to imagine from, b-major: ``posterior`` (B, T) at ``times`` (M,)."""
        ...

    def imagine_step(
        self,
        latent: Latent,
        action: Tensor,
        uniform: Tensor,
        *,
        reward: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Latent:
        """(N,) draw from the prior after ``action`` (N, A).

        Args:
            latent: (N,) to go on from.
            action: (N, A); beyond [-1, 1] it counts as its clipped self, as the robot sends it.
            uniform: (N, *prior.noise_shape) in [0, 1).
            reward: (N,) that arrived with ``latent``; for dynamics with reward tokens.
            temperature: above 1 makes the draw more surprising.
        """
        ...

    def foreseen(self, is_first: Tensor) -> Tensor | None:
        """(B, T) bool, the steps that the prior had something to go by; None: all of them."""
        ...
