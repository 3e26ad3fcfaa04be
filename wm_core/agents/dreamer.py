"""Dreamer: a world model, an actor-critic in its imagination, and one optimiser for both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wm_core.agents.precision import choose_dtypes
from wm_core.behavior.actor import Actor
from wm_core.behavior.actor_critic import ActorCritic
from wm_core.behavior.critic import Critic
from wm_core.config import Config
from wm_core.contract.spec import Spec
from wm_core.nn.blocks import initialize
from wm_core.nn.dists import normal_noise
from wm_core.nn.optim import LaProp
from wm_core.world.latent import Latent, TorchBatch
from wm_core.world.world_model import WorldModel, computing_in


class Dreamer(nn.Module):
    """One agent: what acts, what learns, and everything that must be saved between updates.

    Args:
        spec: what the robot sees and does.
        config: the sizes and rates.
        generator: decides the initial weights.

    Source: DreamerV3, arXiv:2301.04104.
    """

    def __init__(self, spec: Spec, config: Config, *, generator: torch.Generator) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.world = WorldModel(spec, config.world)
        feat, action = self.world.feat_size, spec.action.size
        self.behavior = ActorCritic(feat, action, config.world, config.behavior)
        initialize(self, generator)
        self.critic.follow(rate=1.0)
        names = {"lr", "warmup", "agc", "agc_floor", "beta1", "beta2", "eps"}
        rates = config.optim.model_dump(include=names)
        self.optimizer = LaProp((p for p in self.parameters() if p.requires_grad), **rates)

    @property
    def actor(self) -> Actor:
        return self.behavior.actor

    @property
    def critic(self) -> Critic:
        return self.behavior.critic

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def updates(self) -> int:
        """Updates since the weights were drawn."""
        return int(self.optimizer.param_groups[0]["updates"])

    def initial(self, n: int) -> Latent:
        """(n,) carries of agents that have seen nothing."""
        return self.world.dynamics.initial(n, self.device)

    def update(
        self, batch: TorchBatch, context: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Latent]:
        """One gradient step on everything.

        Args:
            batch: (B, T) windows.
            context: (B, D) deter and (B, S, K) stoch of the step before each window.
            generator: of every draw, on the agent's device.

        Returns:
            Metrics, name -> (), and the posteriors (B, T) without gradient, for the latent cache.
        """
        losses, metrics, posterior = self.losses(batch, context, generator)
        total = torch.stack(list(losses.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        self.critic.follow()
        metrics |= {name: loss.detach() for name, loss in losses.items()}
        return metrics | {"loss": total.detach(), "gradient": self.optimizer.norm}, posterior

    def losses(
        self, batch: TorchBatch, context: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Latent]:
        """Scaled losses, name -> (); metrics, name -> (); posteriors (B, T) without gradient."""
        dtypes = choose_dtypes(self.config, self.device)
        with computing_in(dtypes.everything, self.device):
            world = self.world.loss(
                batch, Latent(*context), generator, conv_dtype=dtypes.convolutions
            )
            behavior = self.behavior.loss(self.world, batch, world.posterior, generator)
        metrics = world.metrics | behavior.metrics
        return world.losses | behavior.losses, metrics, world.posterior.detach()

    @torch.no_grad()
    def act(
        self,
        obs: dict[str, Tensor],
        carry: Latent,
        prev_action: Tensor,
        is_first: Tensor,
        *,
        mean: bool,
        generator: torch.Generator,
    ) -> tuple[Tensor, Latent]:
        """(N, A) actions in [-1, 1] and the next carry, for N environments side by side.

        Args:
            obs: images (N, H, W, C) uint8, vectors (N, n).
            carry: (N,) of the step before, or ``initial``.
            prev_action: (N, A) what was really sent.
            is_first: (N,) bool.
            mean: take the mean action; latents are drawn all the same.
            generator: of every draw, on the agent's device.
        """
        n = prev_action.shape[0]
        shape = (n, *self.world.dynamics.noise_shape())
        uniform = torch.rand(shape, generator=generator, device=self.device)
        latent = self.world.observe_step(carry, prev_action, obs, is_first, uniform)
        dist = self.actor.dist(latent.feat)
        if mean:
            return dist.mean, latent
        drawn = torch.rand(dist.mean.shape, generator=generator, device=self.device)
        return dist.sample(normal_noise(drawn)).clamp(-1.0, 1.0), latent

    def get_extra_state(self) -> dict[str, Any]:
        """The optimiser's part of ``state_dict``."""
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the optimiser's part of a ``state_dict``."""
        self.optimizer.load_state_dict(state)
