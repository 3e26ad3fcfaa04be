"""Trains an actor and a critic in imagination, and the critic on recorded rewards too."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor

from wm_core.behavior.actor import Actor, ActorHead
from wm_core.behavior.base import Behavior, BehaviorLosses
from wm_core.behavior.clone import clone_loss
from wm_core.behavior.critic import Critic
from wm_core.behavior.imagine import Imagined, frozen, imagine
from wm_core.behavior.returns import lambda_return, survival
from wm_core.behavior.settings import BehaviorConfig
from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec
from wm_core.nn import joined
from wm_core.nn.at_once import sum_at_once
from wm_core.nn.blocks import Style
from wm_core.nn.dists import ActionDist
from wm_core.nn.normalize import AdaptiveScale, PercentileRange, RunningStd
from wm_core.nn.optim import ParameterGroup
from wm_core.world.latent import Latent
from wm_core.world.world_model import WorldModel

_IN_PARTS = ("reinforce", "fixed")  # gradient and rule of the entropy of ``rows_at_once``


class ActorCritic(Behavior):
    """An actor, a critic, and the running statistics that scale returns and entropy.

    Source: DreamerV3, arXiv:2301.04104, "Critic learning" and "Actor learning"; replay-value loss
    as in the Nature code; gradients through the dynamics: Dreamer, arXiv:1912.01603, equations 7
    and 8.
    """

    def __init__(
        self, action: ActionSpec, world_model: WorldModel, settings: BehaviorConfig, *, seed: int
    ) -> None:
        super().__init__()
        world, config = world_model.config, settings
        if config.gradient == "auto":
            chosen = "reinforce" if action.discrete else "dynamics"
            config = config.model_copy(update={"gradient": chosen})
        if config.actor.rows_at_once and (config.gradient, config.entropy.rule) != _IN_PARTS:
            raise SettingsError(
                "behavior.actor.rows_at_once takes a loss in parts that is a sum over rollouts: "
                "expected behavior.gradient reinforce and behavior.entropy.rule fixed, got "
                f"{config.gradient} and {config.entropy.rule}; leave rows_at_once out"
            )
        self.config = config
        inputs, units = world.sizes.of(config.reads), config.units or world.units
        style = Style(world.norm, world.activation)
        self.actor = Actor(inputs, action, units, config.actor, style)
        self.critic = Critic(inputs, units, world.heads.bins, config.critic, style)
        self.scale: PercentileRange | RunningStd | None = None
        if config.advantage == "range":
            self.scale = PercentileRange(**config.returns.model_dump())
        elif config.advantage == "std":
            self.scale = RunningStd(rate=config.returns.rate)
        self.entropy_scale: AdaptiveScale | None = None
        if config.entropy.rule == "adaptive":
            target, initial = config.entropy.target, config.entropy.scale
            self.entropy_scale = AdaptiveScale(
                target=target, low=1e-5, high=1.0, raise_when_low=True, initial=initial
            )

    def head(self, world: WorldModel) -> ActorHead:
        return ActorHead(self.actor, self.critic.fast, self.config.reads)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        return {"actor": ParameterGroup.of(self.actor), "critic": ParameterGroup.of(self.critic)}

    def begin(self) -> None:
        self.critic.update_target(rate=1.0)

    def update_target(self, updates: int) -> None:
        if updates % self.config.critic.target_every == 0:
            self.critic.update_target()

    def loss(
        self, world: WorldModel, batch: Batch[Tensor], posterior: Latent, generator: Generator
    ) -> BehaviorLosses:
        """Imagine rollouts from ``posterior`` (B, T) and give the losses of actor and critic.

        The actor's loss and that of cloning reach the actor alone, the imagined value loss the
        critic alone; the replay-value loss reaches the world model through ``posterior``, but not
        through its ``stoch`` where the world model's gradients are staged.
        """
        times = self._times(posterior.deter.shape[:2], generator, posterior.deter.device)
        with torch.no_grad():
            start = world.dynamics.imagination_starts(posterior.detach(), times)
        through = self.config.gradient != "reinforce"
        rollout = imagine(
            world, self.actor, start, self.config.imag_horizon, generator,
            reads=self.config.reads, differentiable=through,
        )  # fmt: skip
        with frozen(world, self.critic) if through else torch.no_grad():
            reward, cont, value = self._predicted(world, rollout.latent)
            target = lambda_return(
                reward, cont, value, discount=world.discount, lam=self.config.lam
            )
        going = self._with_recorded_start(cont.detach(), batch, times, world)
        weight = survival(going * world.discount)[:, :-1] / world.discount
        states = rollout.latent.detach()  # all but the last: one copy, for actor and critic
        part = Latent(states.deter[:, :-1], states.stoch[:, :-1]).read(self.config.reads)
        losses, metrics = self._actor_loss(
            rollout, part, reward, cont, value, target, weight, world
        )
        losses["value_loss"] = self._value_loss(part, target.detach(), weight)
        if self.config.critic.replay_scale:
            recorded = posterior
            if world.config.gradients == "staged":  # latents learn from the reconstruction alone
                recorded = replace(posterior, stoch=posterior.stoch.detach())
            losses["replay_value_loss"] = self._replay_value_loss(
                batch, recorded.read(self.config.reads), times, target[:, 0].detach(),
                world.config.discount,
            )  # fmt: skip
        if self.config.clone.scale:
            part = posterior.read(self.config.reads)[:, :-1].detach()
            losses["clone_loss"] = clone_loss(self.actor.dist(part), batch, self.config.clone)
        metrics |= {
            "imag_reward": reward[:, 1:].mean(),
            "imag_cont": cont[:, 1:].mean(),
            "value": value.mean(),
            "imag_return": target.mean(),
        }
        return BehaviorLosses(losses, {k: v.detach() for k, v in metrics.items()})

    def _predicted(self, world: WorldModel, states: Latent) -> tuple[Tensor, Tensor, Tensor]:
        """(N, T_imag + 1) rewards, chances that the episode goes on, and values of ``states``.

        Args:
            world: whose heads predict.
            states: (N, T_imag + 1); without a graph, a few rollouts are predicted at a time.
        """
        rows = None if torch.is_grad_enabled() else self.config.critic.rows_at_once
        parts = [
            (*world.predict(part), self.critic.value(part.read(self.config.reads)))
            for part in states.split(rows or len(states.deter))
        ]
        reward, cont, value = (torch.cat(of_parts) for of_parts in zip(*parts, strict=True))
        return reward, cont, value

    def _value_loss(self, part: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """() loss of the critic in imagination.

        Args:
            part: (N, T_imag, F) what the critic reads, without gradient.
            target: (N, T_imag) lambda-returns, without gradient.
            weight: (N, T_imag) chance that the episode still goes on, without gradient.
        """
        config = self.config.critic

        def error(part: Tensor, target: Tensor) -> Tensor:
            return self.critic.loss(self.critic.fast(part), part, target)

        if config.rows_at_once is None:
            return config.scale * (weight * error(part, target)).mean()
        total = sum_at_once(
            lambda part, target, weight: (weight * error(part, target)).sum(1),
            (part, target, weight), self.critic.fast.parameters(), config.rows_at_once,
        )  # fmt: skip
        return config.scale * total / weight.numel()

    def _times(self, shape: torch.Size, generator: Generator, device: torch.device) -> Tensor:
        """(M,) distinct times, the same of every window, to imagine from.

        Deviates: the papers imagine from every posterior; ``imag_starts`` takes about so many, at
        the same random times of all windows.
        """
        B, T, wanted = joined.rows_in_all(shape[0]), shape[1], self.config.imag_starts
        if wanted is None or wanted >= B * T:
            return torch.arange(T, device=device)
        return torch.randperm(T, generator=generator, device=device)[: math.ceil(wanted / B)]

    def _with_recorded_start(
        self, cont: Tensor, batch: Batch[Tensor], times: Tensor, world: WorldModel
    ) -> Tensor:
        """(N, T_imag + 1) ``cont``, with the start's as recorded where the settings say so.

        Args:
            cont: (N, T_imag + 1) predicted.
            batch: (B, T) experience.
            times: (M,) that were imagined from, in every window.
            world: says whether it predicts ends at all, and how.

        Source: DreamerV2 and DayDreamer (code): weights begin with 1 - is_terminal.
        """
        if self.config.start_weight == "predicted" or world.cont is None:
            return cont
        goes_on = (~batch.is_terminal[:, times]).float().flatten()
        if world.config.fold_discount:
            goes_on = goes_on * world.config.discount
        return torch.cat([goes_on.unsqueeze(1), cont[:, 1:]], 1)

    def _actor_loss(
        self,
        rollout: Imagined,
        part: Tensor,
        reward: Tensor,
        cont: Tensor,
        value: Tensor,
        target: Tensor,
        weight: Tensor,
        world: WorldModel,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Give the actor's loss, the entropy bonus included.

        Args:
            rollout: N rollouts of T_imag steps.
            part: (N, T_imag, F) what the actor reads of them, without gradient.
            reward: (N, T_imag + 1).
            cont: (N, T_imag + 1).
            value: (N, T_imag + 1) baseline.
            target: (N, T_imag) lambda-returns.
            weight: (N, T_imag) chance that the episode still goes on.
            world: for its discount.
        """
        baseline = value[:, :-1]
        if self.config.baseline == "detached":
            baseline = baseline.detach()
        if self.config.objective == "rewards":  # nothing beyond the horizon, and no critic
            rest = torch.zeros_like(value)
            target = lambda_return(reward, cont, rest, discount=world.discount, lam=1.0)
            baseline = joined.mean(target.detach().mean(0, keepdim=True))
        advantage, metrics = self._scaled(target, baseline)
        metrics["advantage"] = advantage.abs().mean()
        if self.config.actor.rows_at_once is not None:
            loss, metrics["entropy"] = self._loss_in_parts(
                part, rollout.action, advantage.detach(), weight
            )
            return {"policy_loss": loss}, metrics
        dist = self.actor.dist(part) if rollout.dist is None else rollout.dist
        share = {"reinforce": 1.0, "dynamics": 0.0, "mix": self.config.mix}[self.config.gradient]
        gain = torch.zeros_like(weight)
        if share > 0:
            gain = gain + share * dist.log_prob(rollout.action.detach()) * advantage.detach()
        if share < 1:
            gain = gain + (1.0 - share) * advantage
        bonus, more = self._entropy_bonus(dist, weight)
        loss = -self.config.policy_scale * (weight * (gain + bonus)).mean()
        return {"policy_loss": loss}, metrics | more

    def _loss_in_parts(
        self, part: Tensor, action: Tensor, advantage: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """() loss by REINFORCE, a few rollouts at a time, and () mean entropy.

        Args:
            part: (N, T_imag, F) what the actor reads, without gradient, as the others.
            action: (N, T_imag, A).
            advantage: (N, T_imag), scaled.
            weight: (N, T_imag) chance that the episode still goes on.
        """
        entropies = []

        def gain(part: Tensor, action: Tensor, advantage: Tensor, weight: Tensor) -> Tensor:
            dist = self.actor.dist(part)
            entropy = dist.entropy()
            entropies.append(entropy.detach().sum())
            bonus = self.config.entropy.scale * entropy
            return (weight * (dist.log_prob(action) * advantage + bonus)).sum(1)

        total = sum_at_once(
            gain, (part, action, advantage, weight), self.actor.parameters(),
            self.config.actor.rows_at_once,
        )  # fmt: skip
        entropy = torch.stack(entropies).sum() / weight.numel()
        return -self.config.policy_scale * total / weight.numel(), entropy

    def _scaled(self, target: Tensor, baseline: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(N, T_imag) advantages, divided by the running scale, and metrics of the scale."""
        advantage = target - baseline
        if isinstance(self.scale, PercentileRange):
            scale = self.scale.update(target)
            return advantage / scale, {"return_scale": scale}
        if isinstance(self.scale, RunningStd):
            mean, scale = self.scale.update(advantage)
            return (advantage - mean) / scale, {"return_scale": scale}
        return advantage, {}

    def _entropy_bonus(self, dist: ActionDist, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(N, T_imag) bonus for ``dist``, not yet times ``weight`` (N, T_imag).

        Source: fixed: DreamerV2, arXiv:2010.02193, equation 6; hinge: TWM, arXiv:2303.07109,
        policy (of the weighted mean: its code); adaptive: DayDreamer (code), arXiv:2206.14176.
        """
        entropy = dist.entropy()
        metrics = {"entropy": entropy.mean()}
        if self.config.entropy.rule == "fixed":
            return self.config.entropy.scale * entropy, metrics
        share = self.actor.entropy_share(dist)
        metrics["entropy_share"] = share.mean()
        if self.entropy_scale is None:
            mean = self.config.entropy.over == "mean"
            given = joined.mean((weight * share).mean()) if mean else share
            short = self.config.entropy.target - given
            penalty = self.config.entropy.scale * short.clamp_min(0.0)
            # one penalty for all, which the weights of states must not scale
            return -penalty / weight.mean().clamp_min(1e-6) if mean else -penalty, metrics
        scale = self.entropy_scale.update(share.mean())
        metrics["entropy_scale"] = scale
        return scale * share, metrics

    def _replay_value_loss(
        self, batch: Batch[Tensor], part: Tensor, times: Tensor, imagined: Tensor, discount: float
    ) -> Tensor:
        """() loss of the critic on recorded rewards, bootstrapped by imagined returns.

        Args:
            batch: (B, T) experience.
            part: (B, T, F) what the critic reads, with gradients into the world model.
            times: (M,) that were imagined from, in every window.
            imagined: (B * M,) imagined return of each of them.
            discount: per recorded agent step.

        Deviates: a state that was not imagined from bootstraps with the critic's own value.
        """
        raw = self.critic.fast(part)
        boot = self.critic.fast.value(raw.detach())
        boot = boot.index_copy(1, times, imagined.unflatten(0, (-1, len(times))))
        target = lambda_return(
            batch.reward,
            (~batch.is_terminal).float(),
            boot,
            discount=discount,
            lam=self.config.lam,
            is_last=batch.is_last,
        )
        loss = self.critic.loss(raw[:, :-1], part[:, :-1].detach(), target)
        weight = (~batch.is_last[:, :-1]).float()
        return self.config.critic.replay_scale * (weight * loss).mean()
