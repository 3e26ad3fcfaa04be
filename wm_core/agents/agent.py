"""One agent: a world model, a behaviour that learns in its imagination, and their optimisers.

Every system of this project is this class with other parts; ``presets`` names them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from wm_core.agents.optimizers import Optimizers, parts_of
from wm_core.agents.precision import choose_dtypes
from wm_core.behavior.actor import Actor, LinearController
from wm_core.behavior.actor_critic import ActorCritic, BehaviorLosses
from wm_core.behavior.critic import Critic
from wm_core.behavior.evolution import Evolution
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import Spec
from wm_core.nn.blocks import initialize
from wm_core.nn.dists import normal_noise
from wm_core.world.base import Carry
from wm_core.world.latent import Latent
from wm_core.world.world_model import WorldModel, computing_in


class AgentCore(nn.Module):
    """What acts, what learns, and everything that must be saved between updates.

    Args:
        spec: what the robot sees and does.
        config: the parts, their sizes and rates.
        generator: decides the initial weights.
    """

    def __init__(self, spec: Spec, config: Config, *, generator: torch.Generator) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.world = WorldModel(spec, config.world)
        kind = Evolution if config.behavior.learner == "evolution" else ActorCritic
        self.behavior = kind(spec.action, config)
        initialize(self, generator)
        if self.critic is not None:
            self.critic.follow(rate=1.0)
        parts = parts_of(self.world, self.actor, self.critic)
        self.optimizers = Optimizers(parts, self.world, config.optim)

    @property
    def actor(self) -> Actor | LinearController:
        return self.behavior.actor

    @property
    def critic(self) -> Critic | None:
        """None where the behaviour has none."""
        return getattr(self.behavior, "critic", None)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def updates(self) -> int:
        """Updates since the weights were drawn."""
        return self.optimizers.updates

    @property
    def has_memory(self) -> bool:
        """Whether acting needs a carry: not where the actor reads what it sees and no more."""
        return self.config.behavior.reads == "feat"

    def initial(self, n: int) -> Latent:
        """(n,) latents of agents that have seen nothing."""
        return self.world.dynamics.initial(n, self.device)

    # ------------------------------------------------------------------ learning

    def update(
        self, batch: Batch[Tensor], context: Carry | None, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Latent]:
        """One gradient step on everything that is learnt now.

        Args:
            batch: (B, T) windows.
            context: (B, ...) carries of the step before each window; None: nothing is known.
            generator: of every draw, on the agent's device.

        Returns:
            Metrics, name -> (), and the posteriors (B, T) without gradient.
        """
        losses, metrics, posterior = self.losses(batch, context, generator)
        total = torch.stack(list(losses.values())).sum()
        self.optimizers.step(total)
        self.behavior.follow(self.updates)
        metrics |= {name: loss.detach() for name, loss in losses.items()}
        return metrics | {"loss": total.detach(), "gradient": self.optimizers.gradient}, posterior

    def losses(
        self, batch: Batch[Tensor], context: Carry | None, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Latent]:
        """Scaled losses, name -> (); metrics, name -> (); posteriors (B, T) without gradient."""
        if self.config.world.reward_squash == "tanh":
            batch = replace(batch, reward=batch.reward.tanh())
        dynamics = self.world.dynamics
        start = self.initial(len(batch.reward)) if context is None else dynamics.latent_of(context)
        dtypes = choose_dtypes(self.config, self.device)
        stage = self._stage()
        with computing_in(dtypes.everything, self.device):
            world = self.world.loss(batch, start, generator, conv_dtype=dtypes.convolutions)
            behavior = BehaviorLosses({}, {})
            if stage == "behavior":
                behavior = self.behavior.loss(self.world, batch, world.posterior, generator)
        losses = behavior.losses
        losses |= world.representation if stage != "dynamics" else {}
        losses |= world.dynamics if stage != "representation" else {}
        return losses, world.metrics | behavior.metrics, world.posterior.detach()

    def _stage(self) -> str:
        """What is learnt now: representation, dynamics, or, in the end, everything."""
        if self.config.optim.stages is None:
            return "behavior"
        first, second = self.config.optim.stages
        if self.updates < first:
            return "representation"
        return "dynamics" if self.updates < first + second else "behavior"

    # ------------------------------------------------------------------ acting

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

        def rand(*shape: int) -> Tensor:
            return torch.rand((n, *shape), generator=generator, device=self.device)

        uniform = rand(*self.world.dynamics.space.shape)
        if self.has_memory:
            latent = self.world.observe_step(carry, prev_action, obs, is_first, uniform)
        else:
            latent = self.world.glimpse(obs, uniform)
        dist = self.actor.dist(latent.read(self.config.behavior.reads))
        if mean:
            return dist.mode, latent
        action = dist.sample(self.actor.noise(rand(self.spec.action.size))).clamp(-1.0, 1.0)
        return self._explore(action, rand), latent

    def _explore(self, action: Tensor, rand: Any) -> Tensor:
        """(N, A) ``action`` with the noise that collecting adds."""
        noise = self.config.behavior.explore_noise
        if not noise:
            return action
        if self.spec.action.discrete:  # so often a choice at random
            chosen = torch.nn.functional.one_hot(rand(action.shape[1]).argmax(-1), action.shape[1])
            return torch.where(rand(1) < noise, chosen.to(action.dtype), action)
        return (action + noise * normal_noise(rand(action.shape[1]))).clamp(-1.0, 1.0)

    # ------------------------------------------------------------------ checkpoints

    def get_extra_state(self) -> dict[str, Any]:
        """The optimisers' part of ``state_dict``."""
        return self.optimizers.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the optimisers' part of a ``state_dict``."""
        self.optimizers.load_state_dict(state)
