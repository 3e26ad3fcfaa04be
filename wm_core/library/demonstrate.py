"""Records whole episodes of a task's scripted expert into a store, to learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Obs
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training.collect import Collector, EpisodeResult
from wm_core.training.opening import open_env
from wm_core.training.players import ExpertPlayer
from wm_core.training.repeats import usual_repeat
from wm_core.training.settings import EnvConfig

ROBOT = "expert"  #: the name that demonstrations are stored under


class _Expert:
    """Acts as the expert does; its steps are of no policy."""

    version = -1

    def __init__(self, player: ExpertPlayer) -> None:
        self._player = player
        player.begin(0, 0)

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        return self._player.act(obs, prev_action, is_first)


def record_expert(
    task: str, root: Path, *, episodes: int, seed: int = 0, env: EnvConfig | None = None
) -> list[EpisodeResult]:
    """Play whole episodes of ``task`` with its expert and store every step of them.

    Args:
        task: as for ``wm train``; its environment or module has ``expert_action``.
        root: the store's folder; made where it is not there.
        episodes: how many, at least 1.
        seed: of the episodes.
        env: how the environment is made; None: as usual for the task.

    Returns:
        Return and length of each episode.

    Raises:
        SettingsError: for a number of episodes below 1, and a task without an expert.
    """
    if episodes < 1:
        raise SettingsError(f"expected at least 1 of episodes, got {episodes}")
    settings = env or EnvConfig(action_repeat=usual_repeat(task))
    adapter, spec = open_env(task, seed=seed, env=settings)
    try:
        expert = _Expert(ExpertPlayer(adapter, spec))
        ledger = Ledger(root / LEDGER_NAME)
    except BaseException:
        adapter.env.close()
        raise
    recorder = EnvRecorder(root, ledger, robot=ROBOT, task=task, spec=spec)
    collector = Collector([adapter], [recorder], spec)
    ended: list[EpisodeResult] = []
    try:
        while len(ended) < episodes:
            ended += collector.collect(expert, 1)
    finally:
        collector.close()
        ledger.close()
    return ended
