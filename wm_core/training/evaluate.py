"""Evaluates a policy by its returns over whole episodes, with a 95 % interval of their mean.

The same loop runs the training network, the exported file, random actions and an expert, so that
their returns can be compared.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from wm_core.contract.compare import differences
from wm_core.contract.errors import SettingsError
from wm_core.contract.runner import PolicyEngine
from wm_core.contract.spec import Obs, Spec
from wm_core.training.collect import EnvActor, EnvAdapter, choose_actions
from wm_core.training.spaces import ActionMap
from wm_core.training.tasks import make_env, spec_of, task_names

#: 97.5 % points of Student's t for 1, 2, ... 30 degrees of freedom; beyond, see ``_t``
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of a number of episodes."""

    returns: tuple[float, ...]  #: undiscounted, one per episode
    lengths: tuple[int, ...]  #: agent steps, one per episode
    actor: str = ""  #: who acted, in words
    task: str = ""

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def sd(self) -> float:
        """Standard deviation between episodes; 0.0 for a single one."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Two-sided 95 % interval of the mean, by Student's t; infinite for one episode."""
        n = len(self.returns)
        if n < 2:
            return (-math.inf, math.inf)
        half = _t(n - 1) * self.sd / math.sqrt(n)
        return (self.mean - half, self.mean + half)

    def summary(self) -> dict[str, object]:
        """Summarise in a dictionary for JSON; bounds are null where infinite."""
        low, high = (b if math.isfinite(b) else None for b in self.bounds)
        return {
            "mean": self.mean,
            "sd": self.sd,
            "low": low,
            "high": high,
            "episodes": len(self.returns),
            "returns": list(self.returns),
            "lengths": list(self.lengths),
        }


def _t(freedom: int) -> float:
    """Look up the 97.5 % point of Student's t; beyond the table, correct the normal's."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.960 + 2.4 / freedom


def run_episodes(
    adapter: EnvAdapter,
    actor: EnvActor,
    spec: Spec,
    *,
    episodes: int,
    on_episode: Callable[[int, float], None] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Run whole episodes and sum up their rewards.

    Args:
        adapter: of the environment, which is reset before every episode.
        actor: chooses the actions.
        spec: of both.
        episodes: how many.
        on_episode: receives the number of episodes so far and the last return.
        stop: ends the evaluation early and drops the episode in progress.
    """
    returns, lengths = list[float](), list[int]()
    while len(returns) < episodes and not stop():
        state, total, length = adapter.reset(), 0.0, 0
        while not state.is_last and not stop():
            action = spec.action.limit(choose_actions(actor, [adapter])[0], adapter.prev_action)
            state = adapter.step(action)
            total, length = total + state.reward, length + 1
        if state.is_last:
            returns.append(total)
            lengths.append(length)
            if on_episode is not None:
                on_episode(len(returns), total)
    return Evaluation(tuple(returns), tuple(lengths))


class EngineActor:
    """Acts in one environment with an exported policy file."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine
        self.version = engine.runner.card.version

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        one = {k: v[0] for k, v in obs.items()}
        return self._engine.act(one, prev_action[0], bool(is_first[0])).action[None]


class ExpertActor:
    """Acts with the scripted expert that an environment brings along.

    It is the method ``expert_action()`` of the environment or the function
    ``expert_action(env)`` of its module, and returns an element of the action space.

    Args:
        adapter: of the environment.
        spec: of the environment.

    Raises:
        SettingsError: where the environment has no expert.
    """

    version = -1

    def __init__(self, adapter: EnvAdapter, spec: Spec) -> None:
        env = adapter.env.unwrapped
        method = getattr(env, "expert_action", None)
        beside = getattr(sys.modules[type(env).__module__], "expert_action", None)
        if callable(method):
            self._command = method
        elif callable(beside):
            self._command = partial(beside, env)
        else:
            raise SettingsError("this task has no expert: expected expert_action() in its module")
        self._spec = spec
        self._actions = ActionMap(adapter.env.action_space, adapter.env.metadata)

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        command = self._actions.command(self._command())
        return self._spec.action.from_physical(command)[None]


def open_env(task: str, *, seed: int, spec: Spec | None = None) -> tuple[EnvAdapter, Spec]:
    """Open the environment of ``task``, seeded, and give the spec that its policies have.

    Args:
        task: as for ``tasks.make_env``.
        seed: of the episodes.
        spec: of the policy; the environment must give at least its inputs.

    Raises:
        SettingsError: where the environment lacks an input of the policy, takes other actions
            (their kind, number, bounds or names) or acts at another rate.
    """
    proprio = spec is not None and spec.vectors and task in task_names()
    env = make_env(task, **({"proprio": True} if proprio else {}))
    given = spec_of(env)
    wanted = spec or given
    off = differences(wanted, given, resized=True)
    if off:
        env.close()
        raise SettingsError(f"task {task!r} does not fit the policy: {'; '.join(off)}")
    return EnvAdapter(env, wanted, np.random.default_rng(seed)), wanted
