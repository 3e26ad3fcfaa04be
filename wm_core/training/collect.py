"""Acts in environments of this process and records every step as a robot would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from wm_core.contract.spec import Obs, Spec
from wm_core.contract.step import Step
from wm_core.training.adapter import EnvAdapter as EnvAdapter
from wm_core.training.adapter import EnvState as EnvState
from wm_core.training.exploration import RandomActor as RandomActor
from wm_core.training.soundness import sendable


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


class StepRecorder(Protocol):
    """Takes in the steps of one environment, in order."""

    def add(self, step: Step) -> None:
        """Take in one step; its stamp does not matter."""
        ...

    def seal(self) -> None:
        """Make every step so far durable."""
        ...


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
        self, adapters: Sequence[EnvAdapter], recorders: Sequence[StepRecorder], spec: Spec
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

    @property
    def restarts(self) -> int:
        """Count the environments that were made anew after a fault."""
        return sum(adapter.restarts for adapter in self._adapters)

    def _tick(self, actor: EnvActor) -> list[EpisodeResult]:
        for adapter in self._adapters:
            adapter.begin()
        actions = choose_actions(actor, self._adapters)
        states = [adapter.state for adapter in self._adapters]
        for adapter, action in zip(self._adapters, actions, strict=True):
            if adapter.state.is_last:
                adapter.send_reset()
            else:
                limit = self._spec.action.limit
                adapter.send(limit(sendable(action, self._spec.action), adapter.prev_action))
        ended = []
        for i, (adapter, action) in enumerate(zip(self._adapters, actions, strict=True)):
            fault = adapter.receive_or_restart()
            step = _step_of(states[i], action, adapter.sent, actor.version, failed=bool(fault))
            if fault and step.is_first:
                continue  # nothing happened in this episode
            self._recorders[i].add(step)
            self._totals[i] += step.reward if np.isfinite(step.reward) else 0.0
            if step.is_last and not fault:
                ended.append(EpisodeResult(float(self._totals[i]), int(self._lengths[i])))
            self._lengths[i] += 1
            if step.is_last:
                self._totals[i], self._lengths[i] = 0.0, 0
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


def _step_of(
    state: EnvState, action: np.ndarray, sent: np.ndarray, version: int, *, failed: bool
) -> Step:
    """Record what was seen and done; where the environment ``failed``, its episode ends here."""
    is_last = state.is_last or failed  # nothing was sent after the end
    return Step(
        obs=state.obs,
        action=np.zeros_like(sent) if is_last else sent,
        reward=state.reward,
        is_first=state.is_first,
        is_last=is_last,
        is_terminal=state.is_terminal,
        requested_action=None if is_last else np.asarray(action, np.float32),
        is_valid=bool(np.isfinite(action).all()) and not state.lost_pixels,
        policy_version=version,
    )


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
