"""The world model's part of an exported policy turns an observation into a latent."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from wm_core.nn.dists import draw_gap
from wm_core.world.base import Carry
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import Categorical
from wm_core.world.world_model import WorldModel


class Perception(nn.Module):
    """Infers latents with the whole dynamics; each step hands its latent to the next.

    Attributes:
        carry: name -> shape, batch axis of 1 included, of what a step hands to the next.
        drawn: name of the output that holds the draw of the latent.
        noise_shape: of the uniforms that one draw takes, batch axis of 1 included.
    """

    drawn = "next_stoch"

    def __init__(self, world: WorldModel) -> None:
        super().__init__()
        dynamics = world.dynamics
        self.encoder, self.latent_dist = world.encoder, dynamics.latent_dist
        self.dynamics: Any = dynamics
        self.noise_shape = (1, *dynamics.latent_dist.shape)
        self.acting = world.config.acting
        shapes = [tuple(c.shape) for c in dynamics.carry_of(dynamics.initial(1))]
        self.carry = dict(zip(dynamics.carry_names, shapes, strict=True))
        self._compares = dynamics.prior.has_kl

    def infer(
        self, obs: dict[str, Tensor], carry: Carry, sent: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        """Infer the (1,) posterior of one more observation.

        Args:
            obs: images (1, H, W, C) uint8, vectors (1, n).
            carry: (1, ...) of the step before, in the order of ``self.carry``.
            sent: (1, A) action that was really sent.
            is_first: (1,) bool; the past is forgotten there.
            uniform: (1, ...) of ``noise_shape``, in (0, 1).
        """
        embed, before = self.encoder(obs), self.dynamics.latent_of(carry)
        return self.dynamics.observe_step(before, sent, embed, is_first, uniform)

    def latent_outputs(self, latent: Latent) -> Carry:
        """(1, ...) outputs that hold ``latent`` (1,): the next carry, or the draw alone."""
        return self.dynamics.carry_of(latent)

    def surprise(self, latent: Latent) -> Tensor | None:
        """(1,) KL of the posterior from the prior, or the mixture's nats per dimension."""
        guess = self.dynamics.prior(latent.deter)
        if self._compares:
            assert latent.params is not None
            return self.latent_dist.kl(latent.params, guess)
        return self.dynamics.prior.loss(guess, latent)

    def gap(self, latent: Latent, uniform: Tensor) -> Tensor | None:
        """(1, S) log-ratio of the two best of each draw; None where a draw has no candidates."""
        if not isinstance(self.latent_dist, Categorical):
            return None
        assert latent.params is not None
        return draw_gap(latent.params, self.latent_dist.noise(uniform))


class Memoryless(Perception):
    """Infers latents with the posterior alone: there is no past, and no prior to compare with."""

    drawn = "stoch"

    def __init__(self, world: WorldModel) -> None:
        super().__init__(world)
        self.dynamics, self.carry = self.dynamics.posterior, {}

    def infer(
        self, obs: dict[str, Tensor], carry: Carry, sent: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        params = self.latent_dist.params(self.dynamics(self.encoder(obs)))
        stoch = self.latent_dist.sample(params, self.latent_dist.noise(uniform))
        return Latent(stoch.new_zeros(1, 0), stoch, params)

    def latent_outputs(self, latent: Latent) -> Carry:
        return (latent.stoch,)

    def surprise(self, latent: Latent) -> Tensor | None:
        return None
