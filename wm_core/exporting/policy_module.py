"""One step of a policy as a pure function: what the robot runs, and nothing else of the agent.

Carry and noise are arguments, because the exporter drops state that is kept in buffers and the
runtime's own random operators cannot be seeded.  ``prev_action`` is what was really sent: the
network sees zeros in its place at ``is_first``, the slew limit always sees the truth.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wm_core.agents.agent import AgentCore
from wm_core.contract.card import CarryPair, TensorInfo
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.nn.dists import OneHot
from wm_core.world.latent import Latent
from wm_core.world.prior import NetPrior
from wm_core.world.space import Categorical

NOISE = ("noise_latent", "noise_action")


class StepResult(NamedTuple):
    """One answer, and what a golden rollout wants to know beside it."""

    outputs: tuple[Tensor, ...]  #: in the order of ``PolicyStep.outputs()``
    gaps: dict[str, Tensor]  #: output -> (1, S) log-ratio between the two best of each draw
    value_scale: Tensor | None  #: (1,) size of the terms that the value sums


class PolicyStep(nn.Module):
    """(observation, carry, noise) to (action, command, next carry, value, surprise).

    A policy that reads what it sees and no more has no carry, and no prior to be surprised by; a
    controller without a critic has no value.

    Args:
        agent: is copied to the CPU; only what acting needs is kept.
        spec: of the observations and actions it was trained on.
    """

    def __init__(self, agent: AgentCore, spec: Spec) -> None:
        super().__init__()
        self.spec, self.has_memory = spec, agent.has_memory
        self.reads, self.noise = agent.config.behavior.reads, NOISE
        dynamics = agent.world.dynamics
        self.space, self._prior_kind = dynamics.space, type(dynamics.prior)
        names = dynamics.carry_names if self.has_memory else ()
        self.carry = tuple(CarryPair(input=n, output=f"next_{n}") for n in names)
        taken = sorted({*names, "prev_action", "is_first", *NOISE} & {*spec.inputs})
        if taken:
            raise SettingsError(
                f"inputs {taken} have names that a policy uses itself; rename them"
            )
        self.encoder = copy.deepcopy(agent.world.encoder).cpu()
        self.dynamics: Any = copy.deepcopy(self._seeing(agent)).cpu()
        self.actor: Any = copy.deepcopy(agent.actor).cpu()
        self.critic: Any = None if agent.critic is None else copy.deepcopy(agent.critic.fast).cpu()
        low, high = torch.tensor(spec.action.low), torch.tensor(spec.action.high)
        self.low: Tensor
        self.span: Tensor
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("span", high - low, persistent=False)
        self.requires_grad_(False).eval()

    def _seeing(self, agent: AgentCore) -> nn.Module:
        """What of the dynamics acting needs: all of it, or the posterior alone."""
        dynamics: Any = agent.world.dynamics
        return dynamics if self.has_memory else dynamics.posterior

    def refresh(self, agent: AgentCore) -> None:
        """Take over the present weights of ``agent``, on whichever device it is."""
        self.encoder.load_state_dict(agent.world.encoder.state_dict())
        self.dynamics.load_state_dict(self._seeing(agent).state_dict())
        self.actor.load_state_dict(agent.actor.state_dict())
        if self.critic is not None and agent.critic is not None:
            self.critic.load_state_dict(agent.critic.fast.state_dict())

    def _carry_shapes(self) -> tuple[tuple[int, ...], ...]:
        if not self.has_memory:
            return ()
        return tuple(tuple(c.shape) for c in self.dynamics.carry_of(self.dynamics.initial(1)))

    def inputs(self) -> tuple[TensorInfo, ...]:
        """Every input in the order of ``forward``'s arguments."""
        spec, size = self.spec, self.spec.action.size
        sensors = [
            TensorInfo(name=key, dtype=s.dtype.name, shape=(1, *s.shape), meaning=s.meaning)
            for key, s in spec.inputs.items()
        ]
        carry = [
            _floats(pair.input, shape, "carry")
            for pair, shape in zip(self.carry, self._carry_shapes(), strict=True)
        ]
        first = TensorInfo(
            name="is_first", dtype="bool", shape=(1,), meaning="forget the carry, begin an episode"
        )
        return (
            *sensors,
            *carry,
            _floats("prev_action", (1, size), "in [-1, 1], what was really sent"),
            first,
            _floats("noise_latent", (1, *self.space.shape), "uniforms in (0, 1)"),
            _floats("noise_action", (1, size), "uniforms in (0, 1); 0.5: the mean action"),
        )

    def outputs(self) -> tuple[TensorInfo, ...]:
        """Every output in order."""
        action = self.spec.action
        told = [
            _floats("action", (1, action.size), "in [-1, 1], after the slew limit"),
            _floats("command", (1, action.command_size), "the same action in the spec's units"),
        ]
        told += [
            _floats(pair.output, shape, "next carry")
            for pair, shape in zip(self.carry, self._carry_shapes(), strict=True)
        ]
        if not self.has_memory:
            told.append(_floats("stoch", (1, *self.space.shape), "the latent that was drawn"))
        if self.critic is not None:
            told.append(_floats("value", (1,), "expected discounted return, in units of reward"))
        if self.has_memory:
            told.append(_floats("surprise", (1,), "what the prior had not expected, nats"))
        return tuple(told)

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Take one step: arrays (1, ...) in the order of ``inputs`` to those of ``outputs``."""
        return self.step(*arguments).outputs

    def step(self, *arguments: Tensor) -> StepResult:
        """``forward`` with what a golden rollout wants to know beside it."""
        *given, sent, is_first, noise_latent, noise_action = arguments
        keys = list(self.spec.inputs)
        obs, carry = dict(zip(keys, given, strict=False)), tuple(given[len(keys) :])
        latent = self._latent(obs, carry, sent, is_first, noise_latent)
        part = latent.read(self.reads)
        dist, noise = self.actor.dist(part), self.actor.noise(noise_action)
        action = self._limit(dist.sample(noise), sent)
        outputs = [action, self._command(action)]
        outputs += self.dynamics.carry_of(latent) if self.has_memory else [latent.stoch]
        value_scale = None
        if self.critic is not None:
            raw = self.critic(part)
            outputs.append(self.critic.value(raw))
            value_scale = self.critic.size_of(raw)
        if self.has_memory:
            outputs.append(self._surprise(latent))
        gaps = {}
        if isinstance(self.space, Categorical):
            race = self.space.noise(noise_latent)
            gaps["next_stoch" if self.has_memory else "stoch"] = _gap(latent.params, race)
        if isinstance(dist, OneHot):
            gaps["action"] = _gap(dist.log_probs, noise).unsqueeze(-1)
        return StepResult(tuple(outputs), gaps, value_scale)

    def _latent(
        self,
        obs: dict[str, Tensor],
        carry: tuple[Tensor, ...],
        sent: Tensor,
        is_first: Tensor,
        noise: Tensor,
    ) -> Latent:
        embed = self.encoder(obs)
        if self.has_memory:
            before = self.dynamics.latent_of(carry)
            return self.dynamics.observe_step(before, sent, embed, is_first, noise)
        params = self.space.params(self.dynamics(embed))
        stoch = self.space.sample(params, self.space.noise(noise))
        return Latent(stoch.new_zeros(1, 0), stoch, params)

    def _surprise(self, latent: Latent) -> Tensor:
        """(1,) KL of the posterior from the prior, or the mixture's nats per dimension."""
        guess = self.dynamics.prior(latent.deter)
        if issubclass(self._prior_kind, NetPrior):
            assert latent.params is not None
            return self.space.kl(latent.params, guess)
        return self.dynamics.prior.loss(guess, latent)

    def _limit(self, wish: Tensor, sent: Tensor) -> Tensor:
        """(1, A) ``wish`` within the slew limit of ``sent`` (1, A) and within [-1, 1]."""
        if self.spec.action.discrete:
            return wish
        slew = self.spec.action.max_change
        return torch.minimum(torch.maximum(wish, sent - slew), sent + slew).clamp(-1.0, 1.0)

    def _command(self, action: Tensor) -> Tensor:
        """(1, command_size) ``action`` (1, A) in the spec's units; of a choice, its index."""
        if self.spec.action.discrete:
            index = torch.arange(self.spec.action.size, dtype=torch.float32)
            return (action * index).sum(-1, keepdim=True)
        return self.low + (action + 1.0) * 0.5 * self.span


def _gap(log_probs: Tensor | None, weights: Tensor) -> Tensor:
    """(...) how far the best candidate of a draw (..., K) is ahead of the second, as log-ratio."""
    assert log_probs is not None
    best = (log_probs + weights.log()).topk(2, -1).values
    return best[..., 0] - best[..., 1]


def _floats(name: str, shape: tuple[int, ...], meaning: str) -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=shape, meaning=meaning)
