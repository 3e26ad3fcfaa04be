"""Acts in environments of this process and records every step as a robot would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
import torch

from wm_core.contract.errors import EnvFault
from wm_core.contract.spec import ActionSpec, Obs, Spec
from wm_core.contract.step import Step
from wm_core.store.env_recorder import EnvRecorder
from wm_core.training.soundness import Senses, sendable
from wm_core.training.spaces import ActionMap, ObsReader, said_env


class EnvActor(Protocol):
    """Chooses the actions of N environments at once."""

    version: int  #: of the published policy that acts; -1 where it is none

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Choose actions (N, A) float32 in [-1, 1], or one-hot, for N observations.

        Args:
            obs: images (N, H, W, C) uint8, vectors (N, n) float32.
            prev_action: (N, A) actions sent one step before; zeros at ``is_first``.
            is_first: (N,) bool, True where an episode begins.
        """
        ...


class RandomActor:
    """Draws uniform actions: for the prefill, and as the baseline of every evaluation."""

    version = -1

    def __init__(self, action: ActionSpec, rng: np.random.Generator) -> None:
        self._action, self._rng = action, rng

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        return np.stack([self._action.random(self._rng) for _ in is_first])


class AgentActor:
    """Acts with the training network itself, which needs no export.

    Args:
        agent: an ``agents.agent.AgentCore``.
        generator: draws the noise of latents and actions, on the agent's device; several draw for
            one environment each.
        mean: take the mean of the actions instead of a sample, as evaluations do.
        version: recorded with every step.
    """

    def __init__(
        self,
        agent: Any,
        generator: torch.Generator | Sequence[torch.Generator],
        *,
        mean: bool = False,
        version: int = -1,
    ) -> None:
        self._agent, self._generator = agent, generator
        self._carry: Any = None
        self.mean, self.version = mean, version

    @torch.no_grad()
    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        device = self._agent.device
        if self._carry is None:
            self._carry = self._agent.initial(len(is_first))
        action, self._carry = self._agent.act(
            {k: torch.as_tensor(v, device=device) for k, v in obs.items()},
            self._carry,
            torch.as_tensor(prev_action, device=device),
            torch.as_tensor(is_first, device=device),
            mean=self.mean,
            generator=self._generator,
        )
        return action.float().cpu().numpy()


@dataclass
class EnvState:
    """What one environment shows before the next action is chosen."""

    obs: Obs
    reward: float = 0.0  #: 0.0 at ``is_first``
    is_first: bool = True
    is_last: bool = False
    is_terminal: bool = False
    info: dict[str, Any] = field(default_factory=dict)


class EnvAdapter:
    """Presents a Gymnasium environment as states and actions in [-1, 1].

    Args:
        env: has observations and actions in its own units.
        spec: as ``tasks.spec_of(env)`` gives it.
        rng: draws the seed of every episode.
    """

    def __init__(self, env: gymnasium.Env, spec: Spec, rng: np.random.Generator) -> None:
        self.env, self._spec, self._rng = env, spec, rng
        self._reader = ObsReader(env.observation_space, env.metadata)
        self._actions = ActionMap(env.action_space, env.metadata)
        self.prev_action = np.zeros(spec.action.size, np.float32)
        self.senses = Senses()
        self._state: EnvState | None = None

    @property
    def state(self) -> EnvState:
        """What the environment shows now; the first look begins the first episode.

        Not the constructor: a resumed run draws the seed of that episode from streams that are
        restored after it.
        """
        return self.reset() if self._state is None else self._state

    def reset(self, seed: int | None = None) -> EnvState:
        """Begin the episode of ``seed``, or of one that is drawn; returns its first state."""
        drawn = int(self._rng.integers(2**31)) if seed is None else seed
        raw, info = self.env.reset(seed=drawn)
        self.prev_action = np.zeros(self._spec.action.size, np.float32)
        self._state = EnvState(self._obs_of(raw), info=info)
        return self._state

    def step(self, action: np.ndarray) -> EnvState:
        """Send ``action`` (A,) in [-1, 1], already within the spec's limits."""
        if self._state is None:
            self.reset()
        command = self._actions.element(self._spec.action.to_physical(action))
        raw, reward, terminated, truncated, info = self.env.step(command)
        self.prev_action = action
        self._state = EnvState(
            self._obs_of(raw),
            reward=float(reward),
            is_first=False,
            is_last=bool(terminated or truncated),
            is_terminal=bool(terminated),
            info=info,
        )
        return self._state

    @property
    def lost_pixels(self) -> bool:
        """Whether an image of the present state came from NaN or infinity, as no pixel can."""
        return bool(self._reader.not_finite)

    def _obs_of(self, raw: Any) -> Obs:
        try:
            return self._reader.read(raw, self._spec)
        except EnvFault as error:
            raise EnvFault(f"{said_env(self.env)}: {error}") from error


@dataclass(frozen=True)
class EpisodeResult:
    """Return and length of a finished episode."""

    total: float  #: its return, undiscounted
    length: int  #: agent steps


class Collector:
    """Acts in N environments and records every step.

    Args:
        adapters: the environments.
        recorders: one per environment.
        spec: of all of them.
    """

    def __init__(
        self, adapters: Sequence[EnvAdapter], recorders: Sequence[EnvRecorder], spec: Spec
    ) -> None:
        self._adapters, self._recorders, self._spec = list(adapters), list(recorders), spec
        self._totals = np.zeros(len(adapters))
        self._lengths = np.zeros(len(adapters), int)

    def collect(self, actor: EnvActor, steps: int) -> list[EpisodeResult]:
        """Take at least ``steps`` agent steps in all; returns the episodes that ended."""
        ended: list[EpisodeResult] = []
        taken = 0
        while taken < steps:
            ended += self._tick(actor)
            taken += len(self._adapters)
        return ended

    def _tick(self, actor: EnvActor) -> list[EpisodeResult]:
        actions = choose_actions(actor, self._adapters)
        ended = []
        for i, (adapter, action) in enumerate(zip(self._adapters, actions, strict=True)):
            state = adapter.state
            sent = self._spec.action.limit(
                sendable(action, self._spec.action), adapter.prev_action
            )
            if state.is_last:  # nothing was sent after the end
                sent = np.zeros_like(sent)
            step = Step(
                obs=state.obs,
                action=sent,
                reward=state.reward,
                is_first=state.is_first,
                is_last=state.is_last,
                is_terminal=state.is_terminal,
                requested_action=None if state.is_last else np.asarray(action, np.float32),
                is_valid=bool(np.isfinite(action).all()) and not adapter.lost_pixels,
                policy_version=actor.version,
            )
            self._recorders[i].add(step)
            self._totals[i] += state.reward if np.isfinite(state.reward) else 0.0
            if state.is_last:
                ended.append(EpisodeResult(float(self._totals[i]), int(self._lengths[i])))
                self._totals[i], self._lengths[i] = 0.0, 0
                adapter.reset()
            else:
                self._lengths[i] += 1
                adapter.step(sent)
        return ended

    def seal(self) -> None:
        """Write every step so far to the store."""
        for recorder in self._recorders:
            recorder.seal()

    def close(self) -> None:
        """Seal what is open and close the environments; a second call does nothing."""
        self.seal()
        for adapter in self._adapters:
            adapter.env.close()


def choose_actions(actor: EnvActor, adapters: Sequence[EnvAdapter]) -> np.ndarray:
    """Ask ``actor`` for the actions (N, A) float32 in [-1, 1] of N environments.

    It sees no number that is not finite; where its answer is not, it begins anew at the next step.
    """
    seen = [a.senses.of(a.state.obs, is_first=a.state.is_first) for a in adapters]
    actions = actor.act(
        {k: np.stack([obs[k] for obs in seen]) for k in seen[0]},
        np.stack([a.prev_action for a in adapters]),
        np.array([a.state.is_first or a.senses.confused for a in adapters]),
    )
    for adapter, action in zip(adapters, actions, strict=True):
        adapter.senses.heard(action)
    return actions
