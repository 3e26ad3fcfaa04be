"""Evaluates the candidates of an evolution in the environment itself, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from wm_core.agents.agent import AgentCore
from wm_core.behavior.evolution import Evolution
from wm_core.config import Config
from wm_core.contract.spec import Spec
from wm_core.training.agent_actor import AgentActor
from wm_core.training.evaluate import open_env, run_episodes

Weights = dict[str, np.ndarray]


class Population:
    """Computes the mean return of each candidate, all over the same whole episodes.

    Every process has an environment and a copy of the agent; each generation sends it the world
    model's present weights.  The processes start with the first call.

    Args:
        agent: which the candidates belong to.
        task: as for ``tasks.make_env``.
        processes: how many run side by side; None: one for each core.
    """

    def __init__(self, agent: AgentCore, task: str, *, processes: int | None = None) -> None:
        self._agent, self._task = agent, task
        self._processes = processes or os.cpu_count() or 1
        self._generation = 0
        self._pool: ProcessPoolExecutor | None = None

    def __call__(self, candidates: np.ndarray) -> np.ndarray:
        """Compute the mean returns (P,) of candidates (P, n)."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(self._agent.spec, self._agent.config, self._task),
            )
        state = self._agent.world.state_dict()
        weights = {k: v.cpu().numpy() for k, v in state.items() if isinstance(v, torch.Tensor)}
        self._generation += 1
        parts = np.array_split(candidates, min(self._processes, len(candidates)))
        jobs = [self._pool.submit(_mean_returns, weights, p, self._generation) for p in parts]
        return np.concatenate([job.result() for job in jobs])

    def close(self) -> None:
        """End the processes; a second call does nothing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


_here: dict[str, Any] = {}  #: this process's own agent and environment


def _begin(spec: Spec, config: Config, task: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the learner, not this process
    torch.set_num_threads(1)
    _here["agent"] = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    _here["task"], _here["spec"] = task, spec


def _mean_returns(weights: Weights, candidates: np.ndarray, generation: int) -> np.ndarray:
    """Compute mean returns (p,) of candidates (p, n), all over the same episodes and noise."""
    agent: AgentCore = _here["agent"]
    agent.world.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()}, strict=False)
    assert isinstance(agent.behavior, Evolution)
    rollouts = agent.config.behavior.evolution.rollouts
    returns = []
    for candidate in candidates:
        agent.behavior.actor.take(torch.from_numpy(candidate).float())
        settings = agent.config.env
        adapter, spec = open_env(_here["task"], seed=generation, spec=_here["spec"], env=settings)
        try:
            actor = AgentActor(agent, torch.Generator().manual_seed(generation), mean=True)
            returns.append(run_episodes(adapter, actor, spec, episodes=rollouts).mean)
        finally:
            adapter.env.close()
    return np.array(returns)
