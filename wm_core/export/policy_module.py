"""One step of a policy as a pure function: what the robot runs, and nothing else of the agent.

Carry and noise are arguments, because the exporter drops state that is kept in buffers and the
runtime's own random operators cannot be seeded.  ``prev_action`` is what was really sent: the
network sees zeros in its place at ``is_first``, the slew limit always sees the truth.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_core.agents.dreamer import Dreamer
from wm_core.contract.card import CarryPair, TensorInfo
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.nn.dists import categorical_kl, normal_noise, race_weights
from wm_core.world.latent import Latent

CARRY = (
    CarryPair(input="deter", output="next_deter"),
    CarryPair(input="stoch", output="next_stoch"),
)
NOISE = ("noise_latent", "noise_action")
DRAWN = "next_stoch"  #: the output that ties can flip
_RESERVED = {"deter", "stoch", "prev_action", "is_first", *NOISE}


class StepResult(NamedTuple):
    """One answer, and what a golden rollout wants to know beside it."""

    outputs: tuple[Tensor, ...]  #: in the order of ``PolicyStep.outputs()``
    gap: Tensor  #: (1, S) log-ratio between the two best candidates of each draw
    value_scale: Tensor  #: (1,) size of the terms that the value sums


class PolicyStep(nn.Module):
    """(observation, carry, noise) to (action, command, next carry, value, surprise).

    Args:
        agent: is copied to the CPU; only what acting needs is kept.
        spec: of the observations and actions it was trained on.
    """

    def __init__(self, agent: Dreamer, spec: Spec) -> None:
        super().__init__()
        taken = sorted(_RESERVED & {*spec.images, *spec.vectors})
        if taken:
            raise SettingsError(
                f"inputs {taken} have names that a policy uses itself; rename them"
            )
        self.spec = spec
        self.encoder = copy.deepcopy(agent.world.encoder).cpu()
        self.dynamics = copy.deepcopy(agent.world.dynamics).cpu()
        self.actor = copy.deepcopy(agent.actor).cpu()
        self.critic = copy.deepcopy(agent.critic.fast).cpu()
        low, high = torch.tensor(spec.action.low), torch.tensor(spec.action.high)
        self.low: Tensor
        self.span: Tensor
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("span", high - low, persistent=False)
        self.requires_grad_(False).eval()

    def refresh(self, agent: Dreamer) -> None:
        """Take over the present weights of ``agent``, on whichever device it is."""
        self.encoder.load_state_dict(agent.world.encoder.state_dict())
        self.dynamics.load_state_dict(agent.world.dynamics.state_dict())
        self.actor.load_state_dict(agent.actor.state_dict())
        self.critic.load_state_dict(agent.critic.fast.state_dict())

    def inputs(self) -> tuple[TensorInfo, ...]:
        """Every input in the order of ``forward``'s arguments."""
        spec, size = self.spec, self.spec.action.size
        images = [
            TensorInfo(
                name=key,
                dtype="uint8",
                shape=(1, *image.shape),
                meaning=f"{'RGB' if image.channels == 3 else 'mono'}, from contract.image",
            )
            for key, image in spec.images.items()
        ]
        vectors = [
            _floats(key, (1, vector.size), "SI units") for key, vector in spec.vectors.items()
        ]
        start, noise = self.dynamics.initial(1), self.dynamics.noise_shape()
        first = TensorInfo(
            name="is_first", dtype="bool", shape=(1,), meaning="forget the carry, begin an episode"
        )
        return (
            *images,
            *vectors,
            _floats("deter", tuple(start.deter.shape), "carry"),
            _floats("stoch", tuple(start.stoch.shape), "carry, one-hot"),
            _floats("prev_action", (1, size), "in [-1, 1], what was really sent"),
            first,
            _floats("noise_latent", (1, *noise), "uniforms in (0, 1)"),
            _floats("noise_action", (1, size), "uniforms in (0, 1); 0.5: the mean action"),
        )

    def outputs(self) -> tuple[TensorInfo, ...]:
        """Every output in order."""
        size, start = self.spec.action.size, self.dynamics.initial(1)
        return (
            _floats("action", (1, size), "in [-1, 1], after the slew limit"),
            _floats("command", (1, size), "the same action in the spec's units"),
            _floats("next_deter", tuple(start.deter.shape), "next carry"),
            _floats("next_stoch", tuple(start.stoch.shape), "next carry, one-hot"),
            _floats("value", (1,), "expected discounted return, in units of reward"),
            _floats("surprise", (1,), "KL of the posterior from the prior, nats"),
        )

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """The outputs (see ``outputs``) of one step with these arguments (see ``inputs``)."""
        return self.step(*arguments).outputs

    def step(self, *arguments: Tensor) -> StepResult:
        """``forward`` with what a golden rollout wants to know beside it."""
        *sensors, deter, stoch, sent, is_first, noise_latent, noise_action = arguments
        obs = dict(zip([*self.spec.images, *self.spec.vectors], sensors, strict=True))
        latent = self.dynamics.observe_step(
            Latent(deter, stoch), sent, self.encoder(obs), is_first, noise_latent
        )
        assert latent.log_probs is not None
        surprise = categorical_kl(latent.log_probs, self.dynamics.prior(latent.deter))
        feat = latent.feat
        wish = self.actor(feat).sample(normal_noise(noise_action))
        action = self._limit(wish, sent)
        command = self.low + (action + 1.0) * 0.5 * self.span
        logits = self.critic(feat)
        value = self.critic.twohot.mean(logits)
        race = race_weights(noise_latent)
        best = (latent.log_probs + race.log()).topk(2, -1).values
        outputs = (action, command, latent.deter, latent.stoch, value, surprise)
        return StepResult(
            outputs,
            gap=best[..., 0] - best[..., 1],
            value_scale=(torch.softmax(logits, -1) * self.critic.twohot.centers.abs()).sum(-1),
        )

    def _limit(self, wish: Tensor, sent: Tensor) -> Tensor:
        """(1, A) ``wish`` within the slew limit of ``sent`` (1, A) and within [-1, 1]."""
        slew = self.spec.action.max_change
        return torch.minimum(torch.maximum(wish, sent - slew), sent + slew).clamp(-1.0, 1.0)


def _floats(name: str, shape: tuple[int, ...], meaning: str) -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=shape, meaning=meaning)
