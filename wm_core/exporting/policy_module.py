"""One step of a policy is a pure function: this is all of the agent that a robot runs.

It is composed of what the world model contributes (``perception``) and of what the behaviour does
(``PolicyHead``): inputs, outputs, noise and carry of both.

Carry and noise are arguments, because the exporter drops state that is kept in buffers and the
runtime's own random operators cannot be seeded.  ``prev_action`` is what was really sent: the
network sees zeros in its place at ``is_first``, the slew limit always sees the truth.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wm_core.agents.agent import AgentCore
from wm_core.behavior.base import PolicyHead
from wm_core.contract.card import CarryPair, TensorInfo
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.exporting.perception import Memoryless, Perception
from wm_core.nn.blocks import forget
from wm_core.nn.dists import each_group
from wm_core.world.latent_dist import acting_uniform

NOISE = ("noise_latent", "noise_action")
_SQUASHED = ", each reward counted as its tanh"  #: what is learnt from where rewards are squashed


class StepResult(NamedTuple):
    """The outputs of one step, and what a golden rollout keeps beside them."""

    outputs: tuple[Tensor, ...]  #: in the order of ``PolicyStep.outputs()``
    gaps: dict[str, Tensor]  #: output -> (1, S) log-ratio between the two best of each draw
    scales: dict[str, Tensor]  #: output -> (1, ...) size of the terms that it sums


class PolicyStep(nn.Module):
    """(observation, carry, noise) to (action, command, next carry, value, surprise).

    A policy that reads the newest observation alone has no carry, and no prior to be surprised
    by; a behaviour without a critic has no value.

    Args:
        agent: is copied to the CPU; only what acting needs is kept.
        spec: of the observations and actions it was trained on.
    """

    def __init__(self, agent: AgentCore, spec: Spec) -> None:
        super().__init__()
        check_names(agent, spec)
        self.spec, self.noise = spec, NOISE
        self._about_rewards = _SQUASHED if agent.config.world.heads.squash == "tanh" else ""
        shares = copy.deepcopy(_shares(agent)).cpu().requires_grad_(False).eval()
        # their submodules are registered, by their own names, and the shares themselves are not:
        # those names are the ones of the weights in the exported file
        self.__dict__["perception"], self.__dict__["head"] = shares
        for name, module in [pair for share in shares for pair in share.named_children()]:
            self.add_module(name, module)
        behavior = {name: (1, *shape) for name, shape in self.head.carry.items()}
        self._carry_shapes = self.perception.carry | behavior
        self.carry = tuple(CarryPair(input=n, output=f"next_{n}") for n in self._carry_shapes)
        low, high = torch.tensor(spec.action.low), torch.tensor(spec.action.high)
        self.low: Tensor
        self.span: Tensor
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("span", high - low, persistent=False)
        self.eval()

    perception: Perception
    head: PolicyHead

    def refresh(self, agent: AgentCore) -> None:
        """Take over the present weights and buffers of ``agent``, on whichever device it is."""
        for mine, theirs in zip((self.perception, self.head), _shares(agent), strict=True):
            mine.load_state_dict(theirs.state_dict())
            for name, buffer in theirs.named_buffers():  # some are not in the state
                mine.get_buffer(name).copy_(buffer)

    def inputs(self) -> tuple[TensorInfo, ...]:
        """List every input in the order of ``forward``'s arguments."""
        spec, size = self.spec, self.spec.action.size
        sensors = [
            TensorInfo(name=key, dtype=s.dtype.name, shape=(1, *s.shape), meaning=s.meaning)
            for key, s in spec.inputs.items()
        ]
        carry = [_floats(name, shape, "carry") for name, shape in self._carry_shapes.items()]
        first = TensorInfo(
            name="is_first", dtype="bool", shape=(1,), meaning="forget the carry, begin an episode"
        )
        return (
            *sensors,
            *carry,
            _floats("prev_action", (1, size), "in [-1, 1], what was really sent"),
            first,
            _floats("noise_latent", self.perception.noise_shape, "uniforms in (0, 1)"),
            _floats(
                "noise_action",
                (1, *self.head.noise_shape),
                "uniforms in (0, 1); 0.5: the mean action",
            ),
        )

    def outputs(self) -> tuple[TensorInfo, ...]:
        """List every output in order."""
        action = self.spec.action
        perception, head = self.perception, self.head
        latents = [_floats(f"next_{n}", s, "next carry") for n, s in perception.carry.items()]
        if not latents:
            shape = perception.noise_shape
            latents = [_floats(perception.drawn, shape, "the latent that was drawn")]
        carried = [_floats(f"next_{n}", (1, *s), "next carry") for n, s in head.carry.items()]
        outputs = [
            _floats("action", (1, action.size), "in [-1, 1], after the slew limit"),
            _floats("command", (1, action.command_size), "the same action in the spec's units"),
            *latents,
            *carried,
            *(
                _floats(name, (1,), f"{meaning}{self._about_rewards}")
                for name, meaning in head.estimates.items()
            ),
        ]
        if perception.carry:
            outputs.append(_floats("surprise", (1,), "what the prior had not expected, nats"))
        return tuple(outputs)

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Take one step: arrays (1, ...) in the order of ``inputs`` to those of ``outputs``."""
        return self.step(*arguments).outputs

    def step(self, *arguments: Tensor) -> StepResult:
        """``forward`` with what a golden rollout keeps beside it.

        Args:
            arguments: (1, ...) each.
        """
        *given, sent, is_first, noise_latent, noise_action = arguments
        noise_latent = acting_uniform(noise_latent, self.perception.acting)
        keys = list(self.spec.inputs)
        obs, carry = dict(zip(keys, given, strict=False)), tuple(given[len(keys) :])
        cut = len(self.perception.carry)
        latent = self.perception.infer(obs, carry[:cut], sent, is_first, noise_latent)
        before = tuple(forget(c, is_first) for c in carry[cut:])
        choice = self.head.choose(latent, before, noise_action)
        action = self._limit(choice.action, sent)
        outputs = [action, self._command(action), *self.perception.latent_outputs(latent)]
        outputs += choice.carry
        estimates = self.head.estimate(latent, choice)
        outputs += [estimate.value for estimate in estimates.values()]
        surprise = self.perception.surprise(latent)
        if surprise is not None:
            outputs.append(surprise)
        draws = {self.perception.drawn: self.perception.gap(latent, noise_latent)}
        draws["action"] = choice.gap
        gaps = {name: gap for name, gap in draws.items() if gap is not None}
        scales = {name: estimate.scale for name, estimate in estimates.items()}
        if not self.spec.action.discrete:
            scales["command"] = self.span[None]
        return StepResult(tuple(outputs), gaps, scales)

    def _limit(self, requested: Tensor, sent: Tensor) -> Tensor:
        """(1, A) ``requested`` within the slew limit of ``sent`` (1, A) and within [-1, 1]."""
        if self.spec.action.discrete:
            return requested
        slew = self.spec.action.max_change
        return torch.minimum(torch.maximum(requested, sent - slew), sent + slew).clamp(-1.0, 1.0)

    def _command(self, action: Tensor) -> Tensor:
        """(1, command_size) ``action`` (1, A) in the spec's units; of each choice, its index."""
        if self.spec.action.discrete:
            return each_group(_index_of, self.spec.action.groups, action)
        return self.low + (action + 1.0) * 0.5 * self.span


def check_names(agent: AgentCore, spec: Spec) -> None:
    """Refuse inputs with the names of what the agent's exported policy reads and answers itself.

    Which names these are depends on what is carried and estimated, so it is the agent that is
    asked.  It is asked before a training: after it, nothing could be exported.

    Args:
        agent: that is to be exported.
        spec: of its observations.

    Raises:
        SettingsError: naming the inputs, and all names that are taken.
    """
    perception, head = _perception(agent), agent.head
    carry = [*perception.carry, *head.carry]
    own = {"action", "command", "prev_action", "is_first", *NOISE, *head.estimates}
    own |= {*carry, *(f"next_{name}" for name in carry)}
    own.add("surprise" if perception.carry else perception.drawn)
    if taken := sorted(own & {*spec.inputs}):
        raise SettingsError(
            f"inputs {taken} have names that a policy uses itself, which are {sorted(own)}: "
            "rename them in the robot file, or in the environment"
        )


def _shares(agent: AgentCore) -> nn.ModuleList:
    """The parts of ``agent`` that act: its perception and its head, not copied."""
    return nn.ModuleList([_perception(agent), agent.head])


def _perception(agent: AgentCore) -> Perception:
    return (Perception if agent.has_memory else Memoryless)(agent.world)


def _index_of(one_hot: Tensor) -> Tensor:
    """(..., 1) the index that ``one_hot`` (..., K) stands for."""
    index = torch.arange(one_hot.shape[-1], dtype=torch.float32)
    return (one_hot * index).sum(-1, keepdim=True)


def _floats(name: str, shape: tuple[int, ...], meaning: str) -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=shape, meaning=meaning)
