"""Evaluates a policy by whole episodes: their returns, lengths and successes.

The same loop runs the training network, the exported file, random actions and an expert, so that
their returns can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from wm_core.contract.spec import Spec
from wm_core.training.collect import EnvActor, EnvAdapter, EnvState, choose_actions
from wm_core.training.opening import RENDERED as RENDERED
from wm_core.training.opening import open_env as open_env
from wm_core.training.players import Player, seeds_of
from wm_core.training.returns import Evaluation, PlayedEpisode

#: agent steps after which an episode is cut: those of the longest game of Atari, 108,000 frames
MAX_EPISODE_STEPS = 27_000
_SUCCESS = ("success", "is_success")  #: keys of ``info`` by which environments tell it


class Spectator(Protocol):
    """Watches the episodes of an evaluation."""

    def see(self, episode: int, adapter: EnvAdapter, total: float, length: int) -> None:
        """Look at the environment before the first and after every step of ``episode``."""
        ...

    def end(self, episode: int) -> None:
        """Finish the film of ``episode``."""
        ...


def run_episodes(
    adapters: EnvAdapter | Sequence[EnvAdapter],
    actor: EnvActor,
    spec: Spec,
    *,
    episodes: int,
    seed: int | None = None,
    max_steps: int = MAX_EPISODE_STEPS,
    on_episode: Callable[[int, float], None] | None = None,
    spectator: Spectator | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Run whole episodes and sum up their rewards.

    Every episode that begins is also finished, so that side by side the short ones do not count
    for more; where fewer than all are left, some environments idle.

    Args:
        adapters: of one environment, or of several that act side by side.
        actor: chooses the actions of all of them; a ``Player`` has draws for each episode.
        spec: of all.
        episodes: how many.
        seed: of the episodes: the same for the i-th, however many environments there are; None:
            the adapters draw seeds.
        max_steps: agent steps after which an episode is cut, and counted as such.
        on_episode: receives the number of episodes so far and the last return.
        spectator: sees every step.
        stop: is asked before every step; ends the evaluation and drops the episodes in progress.
    """
    several = [adapters] if isinstance(adapters, EnvAdapter) else adapters
    rows = [_Row(adapter, i, actor, spectator) for i, adapter in enumerate(several[:episodes])]
    done, begun = dict[int, PlayedEpisode](), 0
    for row in rows:
        row.begin(begun, seed)
        begun += 1
    while len(done) < episodes and not stop():
        actions = choose_actions(actor, [row.adapter for row in rows])
        for row, action in zip(rows, actions, strict=True):
            if row.episode is None:
                continue
            ended = row.step(action, spec, max_steps)
            if ended is None:
                continue
            done[row.episode] = ended
            if on_episode is not None:
                on_episode(len(done), ended.total)
            row.end()
            if begun < episodes:
                row.begin(begun, seed)
                begun += 1
    return Evaluation.of([done[i] for i in sorted(done)])


class _Row:
    """One of the environments, and the episode that it is in."""

    def __init__(
        self, adapter: EnvAdapter, row: int, actor: EnvActor, spectator: Spectator | None
    ) -> None:
        self.adapter, self._row, self._spectator = adapter, row, spectator
        self._player = actor if isinstance(actor, Player) else None
        self.episode: int | None = None  #: None while it idles

    def begin(self, episode: int, seed: int | None) -> None:
        """Begin the episode of that number."""
        environment, draws = seeds_of(seed or 0, episode)
        self._seed = None if seed is None else environment
        if self._player is not None:
            self._player.begin(self._row, draws)
        state = self.adapter.reset(self._seed)
        self.episode, self._total, self._length = episode, 0.0, 0
        self._unusable, self._told = 0, list[bool]()
        self._look(state)

    def step(self, action: np.ndarray, spec: Spec, max_steps: int) -> PlayedEpisode | None:
        """Take a step with ``action`` (A,); returns the episode where it ended."""
        usable = bool(np.isfinite(action).all())
        if not usable:  # as a robot does that has no answer
            action = spec.action.from_physical(spec.action.zero_command)
        usable &= _is_finite(self.adapter.state)
        state = self.adapter.step(spec.action.limit(action, self.adapter.prev_action))
        self._length += 1
        self._total += state.reward if np.isfinite(state.reward) else 0.0
        self._look(state)
        self._unusable += not (usable and np.isfinite(state.reward))
        ended = state.is_last or self._length >= max_steps
        return self._result(state) if ended else None

    def end(self) -> None:
        """Idle until an episode begins."""
        if self._spectator is not None and self.episode is not None:
            self._spectator.end(self.episode)
        if self._player is not None:
            self._player.end(self._row)
        self.episode = None

    def _look(self, state: EnvState) -> None:
        told = _success(state.info)
        if told is not None:
            self._told.append(told)
        if self._spectator is not None and self.episode is not None:
            self._spectator.see(self.episode, self.adapter, self._total, self._length)

    def _result(self, state: EnvState) -> PlayedEpisode:
        ending = "terminated" if state.is_terminal else "truncated" if state.is_last else "cut"
        return PlayedEpisode(
            self._total,
            self._length,
            ending,
            success=self._told[-1] if self._told else None,
            success_once=any(self._told) if self._told else None,
            seed=self._seed,
            unusable=self._unusable,
        )


def _is_finite(state: EnvState) -> bool:
    return all(np.isfinite(value).all() for value in state.obs.values())


def _success(info: Mapping[str, Any]) -> bool | None:
    """Read from ``info`` whether the task is solved; None where it does not say."""
    for key in _SUCCESS:
        try:
            return float(np.asarray(info[key], np.float64).reshape(-1)[0]) > 0.5
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    return None
