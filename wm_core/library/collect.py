"""Act in a task and keep what happened in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.contract.errors import SettingsError
from wm_core.library.agent import Agent
from wm_core.replay.episodes import Episodes
from wm_core.training.evaluate import MAX_EPISODE_STEPS, open_env
from wm_core.training.settings import EnvConfig


def collect(
    task: str,
    *,
    episodes: int,
    agent: Agent | None = None,
    seed: int = 0,
    env: EnvConfig | None = None,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> Episodes:
    """Run whole episodes of ``task`` and keep every step.

    Args:
        task: a name from `wm tasks`, any Gymnasium id, or one of your own as module:Id.
        episodes: how many, at least 1.
        agent: chooses the actions, drawn as in training; None: uniform random actions.
        seed: of the episodes and of the random actions.
        env: how the environment is made; None: as the agent's settings say.
        max_episode_steps: agent steps after which an episode is cut, as one that goes on.

    Raises:
        SettingsError: for a number of episodes below 1.
    """
    if episodes < 1:
        raise SettingsError(f"expected at least 1 of episodes, got {episodes}")
    known = agent.spec if agent else None
    settings = env or (agent.config.env if agent else None)
    adapter, spec = open_env(task, seed=seed, spec=known, env=settings)
    rng, kept = np.random.default_rng(seed), list[dict[str, Any]]()
    try:
        for _ in range(episodes):
            state, steps = adapter.reset(), list[dict[str, Any]]()
            while True:
                if agent is None:
                    action = spec.action.random(rng)
                else:
                    action = agent.act(state.obs, adapter.prev_action, is_first=state.is_first)
                action = spec.action.limit(action, adapter.prev_action)
                now = {"action": action, "reward": state.reward, "is_terminal": state.is_terminal}
                steps.append(state.obs | now)
                if state.is_last or len(steps) > max_episode_steps:
                    break
                state = adapter.step(action)
            kept.append({name: np.stack([step[name] for step in steps]) for name in steps[0]})
    finally:
        adapter.env.close()
    return Episodes.from_arrays(spec=spec, **{k: [e[k] for e in kept] for k in kept[0]})
