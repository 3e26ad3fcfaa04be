"""REINFORCE with a critic, trained in imagination and, the critic, on recorded rewards too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm_core.behavior.actor import Actor
from wm_core.behavior.critic import Critic
from wm_core.behavior.imagine import Imagined, imagine
from wm_core.behavior.returns import lambda_return, survival
from wm_core.config import BehaviorConfig, WorldConfig
from wm_core.nn.normalize import PercentileRange
from wm_core.world.latent import Latent, TorchBatch
from wm_core.world.world_model import WorldModel


@dataclass(frozen=True, slots=True)
class BehaviorLosses:
    """What one round of imagination made."""

    losses: dict[str, Tensor]  #: name -> (), scaled
    metrics: dict[str, Tensor]  #: name -> ()


class ActorCritic(nn.Module):
    """The actor, the critic and the scale of returns.

    Source: DreamerV3, arXiv:2301.04104, equations 6-11; replay-value loss as in the Nature code.
    """

    def __init__(self, feat: int, action: int, world: WorldConfig, config: BehaviorConfig) -> None:
        super().__init__()
        self.config = config
        self.actor = Actor(feat, action, world.units, config)
        self.critic = Critic(feat, world.units, world.bins, config)
        self.return_range = PercentileRange(
            rate=config.return_rate,
            low=config.return_low,
            high=config.return_high,
            limit=config.return_limit,
        )

    def loss(
        self, world: WorldModel, batch: TorchBatch, posterior: Latent, generator: torch.Generator
    ) -> BehaviorLosses:
        """The losses of actor and critic, imagining from ``posterior`` (B, T).

        The actor's loss reaches the actor alone, the imagined value loss the critic alone; the
        replay-value loss reaches the world model through ``posterior``.
        """
        starts = self._starts(posterior.deter.shape[:2], generator, posterior.deter.device)
        start = posterior.detach().flat(starts)
        horizon = self.config.imag_horizon
        dream = imagine(world.dynamics, self.actor, start, horizon, generator)
        with torch.no_grad():
            reward, cont = world.reward.mean(dream.feat), world.cont.mean(dream.feat)
        logits = self.critic.fast(dream.feat)
        value = self.critic.fast.twohot.mean(logits.detach())
        # The discount is part of cont.
        target = lambda_return(reward, cont, value, discount=1.0, lam=self.config.lam)
        weight = survival(cont)[:, :-1]
        losses, metrics = self._actor_loss(dream, target, value[:, :-1], weight)
        critic = self.critic.loss(logits[:, :-1], dream.feat[:, :-1], target)
        losses["value_loss"] = self.config.value_scale * (weight * critic).mean()
        losses["replay_value_loss"] = self._replay_value_loss(
            batch, posterior.feat, starts, target[:, 0], world.config.discount_horizon
        )
        metrics |= {
            "imag_reward": reward[:, 1:].mean(),
            "imag_cont": cont[:, 1:].mean(),
            "value": value.mean(),
            "imag_return": target.mean(),
        }
        return BehaviorLosses(losses, metrics)

    def _starts(
        self, shape: torch.Size, generator: torch.Generator, device: torch.device
    ) -> Tensor | None:
        """(N,) distinct indices into the flat posteriors to imagine from; None: all of them.

        Deviates: DreamerV3 imagines from every posterior; ``imag_starts`` takes a random part.
        """
        total, wanted = shape[0] * shape[1], self.config.imag_starts
        if wanted is None or wanted >= total:
            return None
        return torch.randperm(total, generator=generator, device=device)[:wanted]

    def _actor_loss(
        self, dream: Imagined, target: Tensor, value: Tensor, weight: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """REINFORCE on (N, T_imag) targets and values, with an entropy bonus."""
        scale = self.return_range.update(target)
        advantage = (target - value) / scale
        dist = self.actor.dist(dream.feat[:, :-1])
        entropy = dist.entropy()
        gain = dist.log_prob(dream.action) * advantage + self.config.entropy * entropy
        losses = {"policy_loss": -self.config.policy_scale * (weight * gain).mean()}
        metrics = {
            "entropy": entropy.detach().mean(),
            "action_std": dist.std.detach().mean(),
            "advantage": advantage.abs().mean(),
            "return_scale": scale,
        }
        return losses, metrics

    def _replay_value_loss(
        self,
        batch: TorchBatch,
        feat: Tensor,
        starts: Tensor | None,
        imagined: Tensor,
        discount_horizon: float,
    ) -> Tensor:
        """() loss of the critic on recorded rewards, bootstrapped by imagined returns.

        Args:
            batch: (B, T) experience.
            feat: (B, T, F) posteriors, with gradients into the world model.
            starts: (N,) flat indices of the states that were imagined from; None: all.
            imagined: (N,) imagined return of each of them.
            discount_horizon: of the discount per recorded agent step.

        Deviates: a state that was not imagined from bootstraps with the critic's own value.
        """
        logits = self.critic.fast(feat)
        if starts is None:
            boot = imagined.unflatten(0, feat.shape[:2])
        else:
            boot = self.critic.fast.twohot.mean(logits.detach()).flatten()
            boot = boot.index_copy(0, starts, imagined).unflatten(0, feat.shape[:2])
        target = lambda_return(
            batch.reward,
            (~batch.is_terminal).float(),
            boot,
            discount=1.0 - 1.0 / discount_horizon,
            lam=self.config.lam,
            is_last=batch.is_last,
        )
        loss = self.critic.loss(logits[:, :-1], feat[:, :-1].detach(), target)
        weight = (~batch.is_last[:, :-1]).float()
        return self.config.replay_value_scale * (weight * loss).mean()
