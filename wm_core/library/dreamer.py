"""Dreams recorded steps with the newest checkpoint of a run, for who replays episodes."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.contract.errors import WmError
from wm_core.contract.spec import Obs
from wm_core.replay.batch import prev_action
from wm_core.store.examine import lacks
from wm_core.training import checkpoint
from wm_core.training.dream import EpisodeDream, dream

if TYPE_CHECKING:
    from wm_core.library.replayed import Replay

SEEN, AHEAD = 16, 50  #: steps that a dream sees, and imagines, at most
MOST_DREAMS = 6  #: that are kept


class Dreamer:
    """Imagines stretches of episodes.

    Args:
        run: whose newest checkpoint is loaded when the first dream is asked for, and again when
            there is a newer one.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._trained: checkpoint.Trained | None = None
        self._dreams: OrderedDict[tuple[Any, ...], tuple[int, EpisodeDream]] = OrderedDict()

    @property
    def updates(self) -> int | None:
        """Updates of the checkpoint that is loaded; None before the first dream."""
        return None if self._trained is None else self._trained.updates

    def why_not(self, replay: Replay) -> str:
        """Say why ``replay`` cannot be dreamt; empty where it can."""
        if not checkpoint.listed(self._run):
            return "no dream: this run has no checkpoint yet"
        try:
            self._load()
        except WmError as error:
            return f"no dream: {error}"
        assert self._trained is not None
        if replay.episode.steps < 2:
            return "no dream: the episode has one step"
        missing = lacks(replay.spec, self._trained.spec)
        return f"no dream: recorded otherwise than it is learnt from: {missing}" if missing else ""

    def dream(
        self, replay: Replay, step: int, camera: str, start: int | None
    ) -> tuple[int, EpisodeDream]:
        """Imagine the stretch of ``replay`` that ``step`` belongs to.

        Args:
            replay: of an episode for which ``why_not`` says nothing.
            step: from 0.
            camera: whose pictures are drawn.
            start: last step that is seen; None begins anew every ``AHEAD`` steps.

        Returns:
            The step at which the dream's window begins, and the dream.
        """
        assert self._trained is not None
        reach = self._trained.agent.world.reach
        first, observed, end = stretch(replay.episode.steps, step, start, reach)
        episode = replay.episode
        place = (episode.robot, episode.session, episode.first_step)
        key = (*place, camera, first, observed, end, self._trained.updates)
        if key not in self._dreams:
            batch = self._window(replay, first, end)
            made = dream(self._trained.agent, batch, observed, seed=0, camera=camera)
            self._dreams[key] = first, made
            while len(self._dreams) > MOST_DREAMS:
                self._dreams.popitem(last=False)
        self._dreams.move_to_end(key)
        return self._dreams[key]

    def _load(self) -> None:
        newest = checkpoint.listed(self._run)[-1]
        if self._trained is None or self._trained.path != newest:
            self._trained = checkpoint.load_agent(self._run)
            self._dreams.clear()

    def _window(self, replay: Replay, first: int, end: int) -> Batch[np.ndarray]:
        """(1, T, ...) steps ``first`` .. ``end`` - 1 of the episode."""
        assert self._trained is not None
        before = max(0, first - 1)
        steps = slice(before, end)
        is_first = replay.is_first[steps].copy()
        action = replay.action[steps]
        if first == 0:  # a stand-in for the step before, whose content does not matter
            is_first, action = (np.concatenate([x[:1], x]) for x in (is_first, action))
            is_first[1] = True
        obs: Obs = {name: replay.observe(name, first, end)[None] for name in self._spec_inputs()}
        flag = np.zeros((1, end - first), bool)
        return Batch(
            obs=obs,
            prev_action=prev_action(action[None], is_first[None]),
            reward=np.where(is_first[1:], np.float32(0.0), replay.reward[first:end])[None],
            is_first=is_first[None, 1:],
            is_last=flag,
            is_terminal=flag,
        )

    def _spec_inputs(self) -> list[str]:
        assert self._trained is not None
        return list(self._trained.spec.inputs)


def stretch(
    steps: int, step: int, start: int | None, reach: int | None = None
) -> tuple[int, int, int]:
    """Choose what a dream sees and imagines of an episode, so that ``step`` is in it.

    Args:
        steps: of the episode, 2 or more.
        step: that is looked at, from 0.
        start: last step that is seen; None begins anew where the steps that are imagined end.
        reach: most steps of a dream, seen and imagined; None: any number.

    Returns:
        The window's first step, how many of it are seen (at least one), and the step behind its
        last.
    """
    seen = SEEN if reach is None else min(SEEN, reach // 2)
    ahead = AHEAD if reach is None else min(AHEAD, reach - seen)
    if start is not None:
        start = min(max(start, 0), steps - 2)
        first = max(0, start - seen + 1)
        return first, start - first + 1, min(steps, start + 1 + ahead)
    if steps < 2 * seen:
        return 0, max(1, steps // 3), steps
    number = max(0, step - seen) // ahead
    first = number * ahead
    return first, seen, min(steps, first + seen + ahead)
