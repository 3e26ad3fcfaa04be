"""Who acts in an evaluation: a training network, an exported policy, chance, or an expert.

Every episode has draws of its own, from a seed of its own.  So the same episodes are played, with
the same noise, whether one environment plays them one after the other or several side by side.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from wm_core.contract.errors import PolicyFailed, SettingsError
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import ActionSpec, Obs, Spec
from wm_core.training.adapter import EnvAdapter
from wm_core.training.agent_actor import AgentActor
from wm_core.training.spaces import ActionMap


def seeds_of(seed: int, episode: int) -> tuple[int, int]:
    """Draw the seed of an environment's episode, and that of the draws of who plays it."""
    environment, draws = np.random.SeedSequence((seed, episode)).generate_state(2, np.uint32)
    return int(environment >> 1), int(draws)


class Player:
    """Chooses the actions of N environments, each of which is a row of the arrays."""

    version = -1  #: of the published policy that acts; -1 where it is none

    def begin(self, row: int, seed: int) -> None:
        """Begin an episode in environment ``row``, whose draws come from ``seed``."""

    def end(self, row: int) -> None:
        """Take no notice of ``row`` until an episode begins there."""

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Choose actions (N, A) float32 in [-1, 1], or one-hot; any for a row that has ended.

        Args:
            obs: images (N, H, W, C) uint8, vectors (N, n) float32.
            prev_action: (N, A) actions sent one step before; zeros at ``is_first``.
            is_first: (N,) bool, True where an episode begins.
        """
        raise NotImplementedError


class AgentPlayer(Player):
    """Plays with the training network, all rows in one batch.

    Args:
        agent: an ``agents.agent.AgentCore``.
        rows: number of environments.
        mean: take the likeliest action instead of drawing one.
    """

    def __init__(self, agent: Any, rows: int, *, mean: bool = True) -> None:
        self._generators = [torch.Generator(agent.device) for _ in range(rows)]
        self._actor = AgentActor(agent, self._generators, mean=mean)

    def begin(self, row: int, seed: int) -> None:
        self._generators[row].manual_seed(seed)

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        return self._actor.act(obs, prev_action, is_first)


class _RowByRow(Player):
    """Plays each row by itself."""

    def __init__(self, action: ActionSpec) -> None:
        self._action, self._playing = action, dict[int, Any]()

    def begin(self, row: int, seed: int) -> None:
        self._playing[row] = self._start(row, seed)

    def end(self, row: int) -> None:
        self._playing.pop(row, None)

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        actions = np.zeros((len(is_first), self._action.size), np.float32)
        for row, who in self._playing.items():
            one = {key: value[row] for key, value in obs.items()}
            actions[row] = self._choose(who, one, prev_action[row], bool(is_first[row]))
        return actions

    def _start(self, row: int, seed: int) -> Any:
        raise NotImplementedError

    def _choose(self, who: Any, obs: Obs, prev_action: np.ndarray, first: bool) -> np.ndarray:
        raise NotImplementedError


class RandomPlayer(_RowByRow):
    """Plays uniform random actions."""

    def _start(self, row: int, seed: int) -> np.random.Generator:
        return np.random.default_rng(seed)

    def _choose(self, who: Any, obs: Obs, prev_action: np.ndarray, first: bool) -> np.ndarray:
        return self._action.random(who)


class EnginePlayer(_RowByRow):
    """Plays an exported policy, whose graph takes one environment at a time.

    Where the policy fails to answer it stands still for a step, as a robot does.

    Args:
        runner: the policy.
        mean: take the mean action instead of drawing it.
    """

    def __init__(self, runner: PolicyRunner, *, mean: bool = True) -> None:
        super().__init__(runner.spec.action)
        self._runner, self._mean = runner, mean
        self.version = runner.card.version

    def _start(self, row: int, seed: int) -> PolicyEngine:
        return PolicyEngine(self._runner, seed=seed, mean=self._mean, estimates=())

    def _choose(self, who: Any, obs: Obs, prev_action: np.ndarray, first: bool) -> np.ndarray:
        try:
            return who.act(obs, prev_action, first).action
        except PolicyFailed:
            return np.full(self._action.size, np.nan, np.float32)  # counted as unusable


class ExpertPlayer(_RowByRow):
    """Plays with the scripted expert that an environment brings along.

    It is the method ``expert_action()`` of the environment or the function
    ``expert_action(env)`` of its module, and returns an element of the action space.

    Args:
        adapters: of the environments.
        spec: of the environments.

    Raises:
        SettingsError: where the environment has no expert.
    """

    def __init__(self, adapters: EnvAdapter | Sequence[EnvAdapter], spec: Spec) -> None:
        super().__init__(spec.action)
        rows = [adapters] if isinstance(adapters, EnvAdapter) else adapters
        self._experts = [_expert_of(adapter) for adapter in rows]

    def _start(self, row: int, seed: int) -> Any:
        return self._experts[row]

    def _choose(self, who: Any, obs: Obs, prev_action: np.ndarray, first: bool) -> np.ndarray:
        command, actions = who
        return self._action.from_physical(actions.command(command()))


def _expert_of(adapter: EnvAdapter) -> tuple[Any, ActionMap]:
    env = adapter.env.unwrapped
    command = getattr(env, "expert_action", None)
    beside = getattr(sys.modules[type(env).__module__], "expert_action", None)
    if not callable(command):
        command = partial(beside, env) if callable(beside) else None
    if command is None:
        raise SettingsError("this task has no expert: expected expert_action() in its module")
    return command, ActionMap(adapter.env.action_space, adapter.env.metadata)
