"""The core of an agent joins a world model, a behaviour and their optimisers.

Every system of this project is this class with other parts; ``presets`` names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from wm_core.agents.optimizers import Optimizers
from wm_core.agents.precision import choose_dtypes
from wm_core.behavior.base import Behavior, BehaviorLosses, PolicyHead
from wm_core.behavior.settings import BEHAVIORS
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.nn.blocks import drawing_from, forget, initialize
from wm_core.nn.dists import each_group, normal_noise, sample_onehot
from wm_core.world.base import Carry
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import acting_uniform
from wm_core.world.world_model import WorldModel, computing_in


@dataclass(frozen=True, slots=True)
class Acting(Latent):
    """The latent that acting goes on from, with what the behaviour carries beside it."""

    behavior: Carry = ()  #: (N, ...) each, as ``PolicyHead.carry`` names them

    @classmethod
    def of(cls, latent: Latent, behavior: Carry) -> Acting:
        """(N,) ``latent`` and ``behavior`` (N, ...) as one."""
        values = {field.name: getattr(latent, field.name) for field in fields(Latent)}
        return cls(**values, behavior=behavior)


class AgentCore(nn.Module):
    """Joins a world model, a behaviour and their optimisers: all that a checkpoint must hold.

    Args:
        spec: what the robot sees and does.
        config: the parts, their sizes and rates.
        generator: decides the initial weights.
    """

    head: PolicyHead  #: what of the behaviour acts

    def __init__(self, spec: Spec, config: Config, *, generator: torch.Generator) -> None:
        super().__init__()
        self.spec, self.config = spec, config
        self.world = WorldModel(spec, config.world, generator=generator)
        settings, make = config.behavior.of_learner, BEHAVIORS.make(config.behavior.learner)
        with drawing_from(generator):
            self.behavior: Behavior = make(spec.action, self.world, settings, seed=config.seed)
        initialize(self.behavior, generator)
        self.behavior.begin()
        groups, behavior = self.world.parameter_groups(), self.behavior.parameter_groups()
        if taken := sorted(groups.keys() & behavior.keys()):
            raise SettingsError(
                f"expected names of parameter groups other than the world model's, got {taken} "
                f"from the behavior {config.behavior.learner}: call them differently"
            )
        self.optimizers = Optimizers(groups | behavior, self.world, config.optim)
        # not registered: its modules are those of the behaviour and the world model
        self.__dict__["head"] = self.behavior.head(self.world)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def updates(self) -> int:
        """Updates since the weights were drawn."""
        return self.optimizers.updates

    @property
    def has_memory(self) -> bool:
        """Whether acting needs the past: not where the behaviour reads the newest ``stoch``."""
        return self.head.reads != "stoch"

    def initial(self, n: int) -> Acting:
        """(n,) latents of agents that have no past yet."""
        latent = self.world.dynamics.initial(n, self.device)
        return Acting.of(latent, self.head.initial(n, self.device))

    # ------------------------------------------------------------------ learning

    def update(
        self, batch: Batch[Tensor], context: Carry | None, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Latent]:
        """Take one gradient step on everything that is trained in the present stage.

        Args:
            batch: (B, T) windows.
            context: (B, ...) carries of the step before each window; None: nothing is known.
            generator: of every draw, on the agent's device.

        Returns:
            Metrics, name -> (), and the posteriors (B, T) without gradient.
        """
        if not self.updates:
            self.world.begin_with(batch.obs)
        result = self.step(batch, context, generator)
        self.stepped()
        return result

    def stepped(self) -> None:
        """Count the update whose ``step`` was taken, and move target networks."""
        self.optimizers.updates += 1
        self.behavior.update_target(self.updates)

    def step(
        self, batch: Batch[Tensor], context: Carry | None, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], Latent]:
        """Do of ``update`` (B, T) what happens in tensors alone, and counts nothing."""
        losses, metrics, posterior = self.losses(batch, context, generator)
        total = torch.stack(list(losses.values())).sum()
        self.optimizers.step(total)
        metrics |= {name: loss.detach() for name, loss in losses.items()}
        return metrics | {"loss": total.detach(), "gradient": self.optimizers.gradient}, posterior

    def losses(
        self, batch: Batch[Tensor], context: Carry | None, generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Latent]:
        """Compute losses and metrics, name -> (), and posteriors (B, T) without gradient."""
        batch, dynamics = self._squashed(batch), self.world.dynamics
        start = self.initial(len(batch.reward)) if context is None else dynamics.latent_of(context)
        dtypes = choose_dtypes(self.config, self.device)
        stage = self.stage()
        with computing_in(dtypes.everything, self.device):
            world = self.world.loss(batch, start, generator, conv_dtype=dtypes.convolutions)
            behavior = BehaviorLosses({}, {})
            if stage == "behavior":
                behavior = self.behavior.loss(self.world, batch, world.posterior, generator)
        losses = behavior.losses
        losses |= world.representation if stage != "dynamics" else {}
        losses |= world.dynamics if stage != "representation" else {}
        return losses, world.metrics | behavior.metrics, world.posterior.detach()

    def window_loss(self, batch: Batch[Tensor], posterior: Latent) -> Tensor:
        """(B,) how badly each window of ``batch`` (B, T) was predicted, for a selector.

        Args:
            batch: (B, T) windows.
            posterior: (B, T) latents of ``batch``, as ``update`` returns them.
        """
        with computing_in(choose_dtypes(self.config, self.device).everything, self.device):
            return self.world.window_loss(self._squashed(batch), posterior)

    def _squashed(self, batch: Batch[Tensor]) -> Batch[Tensor]:
        """``batch`` (B, T) with rewards as they are learnt."""
        if self.config.world.heads.squash == "tanh":
            return replace(batch, reward=batch.reward.tanh())
        return batch

    def stage(self) -> str:
        """Name what is trained now: representation, dynamics, world, or with behavior all."""
        last = "world" if self.config.train.policy == "off" else "behavior"
        if self.config.optim.stages is None:
            return last
        first, second = self.config.optim.stages
        if self.updates < first:
            return "representation"
        return "dynamics" if self.updates < first + second else last

    # ------------------------------------------------------------------ acting

    @torch.no_grad()
    def act(
        self,
        obs: dict[str, Tensor],
        carry: Acting,
        prev_action: Tensor,
        is_first: Tensor,
        *,
        mean: bool,
        generator: torch.Generator | Sequence[torch.Generator],
        noise: Tensor | None = None,
    ) -> tuple[Tensor, Acting]:
        """Choose actions (N, A) in [-1, 1] for N environments; returns them and the next carry.

        Args:
            obs: images (N, H, W, C) uint8, vectors (N, n).
            carry: (N,) of the step before, or ``initial``.
            prev_action: (N, A) what was really sent.
            is_first: (N,) bool.
            mean: take the likeliest action; latents are drawn nevertheless, unless the settings
                say otherwise.
            generator: of every draw, on the agent's device; or one for each environment.
            noise: (N, *head.noise_shape) uniforms in [0, 1) that decide the draws of the actions;
                None: the generator draws them.
        """
        n = prev_action.shape[0]

        def rand(*shape: int) -> Tensor:
            if isinstance(generator, torch.Generator):
                return torch.rand((n, *shape), generator=generator, device=self.device)
            rows = (torch.rand(shape, generator=g, device=self.device) for g in generator)
            return torch.stack([*rows])

        uniform = rand(*self.world.dynamics.latent_dist.shape)
        uniform = acting_uniform(uniform, self.config.world.acting)
        if self.has_memory:
            latent = self.world.observe_step(carry, prev_action, obs, is_first, uniform)
        else:
            latent = self.world.encode_posterior(obs, uniform)
        before = tuple(forget(c, is_first) for c in carry.behavior)
        if mean:
            noise = None
        elif noise is None:
            noise = rand(*self.head.noise_shape)
        choice = self.head.choose(latent, before, noise)
        after = Acting.of(latent, choice.carry)
        if mean:
            return choice.action, after
        return self._explore(choice.action.clamp(-1.0, 1.0), rand), after

    def _explore(self, action: Tensor, rand: Any) -> Tensor:
        """(N, A) ``action`` with the noise that collecting adds."""
        noise = self.config.behavior.explore_noise
        if not noise:
            return action
        if self.spec.action.discrete:  # at this rate, a random choice
            even, groups = torch.ones_like(action), self.spec.action.groups
            chosen = each_group(sample_onehot, groups, even, rand(action.shape[1]))
            return torch.where(rand(1) < noise, chosen, action)
        return (action + noise * normal_noise(rand(action.shape[1]))).clamp(-1.0, 1.0)

    # ------------------------------------------------------------------ checkpoints

    def get_extra_state(self) -> dict[str, Any]:
        """The optimisers' part of ``state_dict``."""
        return self.optimizers.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the optimisers' part of a ``state_dict``."""
        self.optimizers.load_state_dict(state)
