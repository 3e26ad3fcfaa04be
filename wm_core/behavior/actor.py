"""Actors turn a latent into a distribution over actions; their head acts on robots too."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_core.behavior.base import Carry, Choice, Estimate, PolicyHead
from wm_core.behavior.settings import ActorConfig
from wm_core.contract.spec import ActionSpec
from wm_core.nn.blocks import MLP, STYLE, Linear, Style
from wm_core.nn.dists import (
    ActionDist,
    Normal,
    OneHot,
    TanhNormal,
    TruncatedNormal,
)
from wm_core.world.heads import NumberHead
from wm_core.world.latent import Latent
from wm_core.world.settings import Reads

_MEAN_LIMIT = 5.0  #: largest mean of tanh_normal before the tangent


class Actor(nn.Module):
    """Maps latents (..., F) to a distribution over actions of the kind that the settings name.

    Draws of ``normal`` may lie outside [-1, 1]: their log-probability is that of the draw, the
    dynamics and the robot see it clipped.

    Args:
        inputs: F, length of the part of a latent that it reads.
        action: how many actions there are, and whether they are choices.
        units: width of the layers.
        config: kind, bounds and number of layers.
        style: of the layers.

    Source: ``normal``: DreamerV3 (Nature code), std = (max - min) * sigmoid(x + 2) + min, and
    DayDreamer (code), whose ``std_shift`` is 0 instead of 2;
    ``tanh_normal``: Dreamer (code); ``truncated_normal``: DreamerV2 (code).
    """

    def __init__(
        self,
        inputs: int,
        action: ActionSpec,
        units: int,
        config: ActorConfig,
        style: Style = STYLE,
    ) -> None:
        super().__init__()
        self.action_size, self.sizes, self.config = action.size, action.sizes, config
        self.groups = action.groups
        self.kind = "one_hot" if action.discrete else config.kind
        self.layers = MLP(inputs, units, config.layers, style)
        self.mean = Linear(units, action.size, scale=0.01)
        self.std = None if action.discrete else Linear(units, action.size, scale=0.01)

    def dist(self, part: Tensor) -> ActionDist:
        """Make the distribution over actions (..., A) for the part of a latent (..., F)."""
        x = self.layers(part)
        mean = self.mean(x).float()
        if self.std is None:
            return OneHot.of(mean, self.groups, self.config.unimix)
        spread, low, high = self.std(x).float(), self.config.min_std, self.config.max_std
        if self.kind == "tanh_normal":
            begin = math.log(math.expm1(self.config.init_std))
            std = F.softplus(spread + begin) + 1e-4
            return TanhNormal(_MEAN_LIMIT * torch.tanh(mean / _MEAN_LIMIT), std)
        if self.kind == "truncated_normal":
            return TruncatedNormal(torch.tanh(mean), 2.0 * torch.sigmoid(spread / 2.0) + low)
        share = torch.sigmoid(spread + self.config.std_shift)
        return Normal(torch.tanh(mean), (high - low) * share + low)

    def noise(self, uniform: Tensor) -> Tensor:
        """(..., A) noise that ``sample`` takes, made of uniforms (..., A)."""
        return _KINDS[self.kind].noise(uniform)

    def entropy_share(self, dist: ActionDist) -> Tensor:
        """(...) entropy of ``dist`` as a share of the range that it can have."""
        if isinstance(dist, OneHot):
            return dist.entropy() / sum(map(math.log, self.sizes))
        low = math.log(self.config.min_std)
        high = math.log(self.config.max_std)
        return ((dist.std.log() - low) / (high - low)).mean(-1)

    def forward(self, part: Tensor) -> ActionDist:
        return self.dist(part)


_KINDS: dict[str, type[ActionDist]] = {
    "normal": Normal,
    "tanh_normal": TanhNormal,
    "truncated_normal": TruncatedNormal,
    "one_hot": OneHot,
}


class LinearController(nn.Module):
    """Maps latents (..., F) to actions by one linear map: its tangent, or the likeliest choices.

    Source: World Models, arXiv:1803.10122, section 2.3.
    """

    def __init__(self, inputs: int, action: ActionSpec) -> None:
        super().__init__()
        self.action_size, self.discrete = action.size, action.discrete
        self.groups = action.groups
        self.linear = Linear(inputs, action.size, scale=0.0)

    @property
    def parameters_count(self) -> int:
        """Length n of a candidate: all weights and biases."""
        return self.linear.weight.numel() + self.action_size

    def dist_of(self, raw: Tensor) -> ActionDist:
        """Turn raw outputs (..., A) into the distribution that they stand for."""
        if self.discrete:
            return OneHot.of(raw, self.groups)
        mean = torch.tanh(raw)
        return Normal(mean, torch.zeros_like(mean))

    def dist(self, part: Tensor) -> ActionDist:
        """Make the certain distribution over (..., A) for the part of a latent (..., F)."""
        return self.dist_of(self.linear(part).float())

    def act(self, part: Tensor, candidates: Tensor) -> Tensor:
        """(P, R, A) actions of P candidates (P, n), each for R rows (P, R, F) of its own."""
        size, count = part.shape[-1], self.action_size
        weight, bias = candidates[:, count:], candidates[:, :count]
        raw = torch.bmm(part, weight.unflatten(1, (count, size)).transpose(1, 2))
        return self.dist_of(raw + bias.unsqueeze(1)).mode

    @property
    def candidate(self) -> Tensor:
        """(n,) copy of its weights: what ``take`` takes."""
        assert self.linear.bias is not None
        return torch.cat([self.linear.bias, self.linear.weight.flatten()]).detach()

    @torch.no_grad()
    def take(self, candidate: Tensor) -> None:
        """Become ``candidate`` (n,): the biases, then the weights row by row."""
        assert self.linear.bias is not None
        self.linear.bias.copy_(candidate[: self.action_size])
        self.linear.weight.copy_(candidate[self.action_size :].view_as(self.linear.weight))

    def noise(self, uniform: Tensor) -> Tensor:
        """(..., A) noise that ``sample`` takes, made of uniforms (..., A)."""
        return (OneHot if self.discrete else Normal).noise(uniform)


class ActorHead(PolicyHead):
    """Acts by one draw from an actor's distribution, with the critic's value beside it.

    Args:
        actor: chooses.
        critic: estimates the return; None: there is no estimate.
        reads: the part of the latent that both read.
    """

    def __init__(
        self, actor: Actor | LinearController, critic: NumberHead | None, reads: Reads
    ) -> None:
        super().__init__()
        self.actor, self.critic, self.reads = actor, critic, reads
        self.noise_shape = (actor.action_size,)
        if critic is not None:
            self.estimates = {"value": "expected discounted return, in units of reward"}

    def choose(self, latent: Latent, carry: Carry, uniform: Tensor | None) -> Choice:
        part = latent.read(self.reads)
        dist = self.actor.dist(part)
        if uniform is None:
            return Choice(dist.mode, part=part)
        noise = self.actor.noise(uniform)
        action, gap = dist.sample(noise), None
        if isinstance(dist, OneHot):
            gap = dist.gap(noise)
        return Choice(action, gap=gap, part=part)

    def estimate(self, latent: Latent, choice: Choice) -> dict[str, Estimate]:
        if self.critic is None:
            return {}
        raw = self.critic(choice.part)
        return {"value": Estimate(self.critic.value(raw), self.critic.size_of(raw))}
