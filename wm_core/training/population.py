"""Evaluates the candidates of an evolution in the environment itself, on all cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from wm_core.agents.agent import AgentCore
from wm_core.behavior.base import Fitness
from wm_core.behavior.evolution import Evolution
from wm_core.config import Config
from wm_core.contract.errors import EnvRaised
from wm_core.contract.spec import Spec
from wm_core.training.agent_actor import AgentActor
from wm_core.training.evaluate import open_env, run_episodes

Weights = dict[str, np.ndarray]
_SPAWN = multiprocessing.get_context("spawn")


class Population(Fitness):
    """Computes the mean return of each candidate, all over the same whole episodes.

    Every process has an environment and a copy of the agent; each generation sends it the world
    model's present weights.  The processes start with the first call, and end with this one,
    however that ends.

    Args:
        agent: which the candidates belong to.
        task: as for ``tasks.make_env``.
        processes: how many run side by side; None: one for each core.
    """

    def __init__(self, agent: AgentCore, task: str, *, processes: int | None = None) -> None:
        self._agent, self._task = agent, task
        self._processes = processes or os.cpu_count() or 1
        self._cpu_s = 0.0  # of jobs, not yet taken
        self._pool: ProcessPoolExecutor | None = None
        self._ours: Connection | None = None  # the processes end when it is closed

    def check(self) -> None:
        """Open the environment once, and close it again.

        Raises:
            WmError: where it cannot be made, or is not what the agent was made for.
        """
        agent = self._agent
        open_env(self._task, seed=0, spec=agent.spec, env=agent.config.env)[0].env.close()

    def __call__(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Compute the mean returns (P,) of candidates (P, n).

        Args:
            candidates: (P, n).
            generation: seeds the episodes.

        Raises:
            EnvFault: for an environment that fails, and where one of the processes is lost.
        """
        pool = self._begun()
        state = self._agent.world.state_dict()
        weights = {k: v.cpu().numpy() for k, v in state.items() if isinstance(v, torch.Tensor)}
        parts = np.array_split(candidates, min(self._processes, len(candidates)))
        try:
            jobs = [pool.submit(_mean_returns, weights, part, generation) for part in parts]
            found = [job.result() for job in jobs]
        except BrokenProcessPool as error:
            raise EnvRaised(
                f"task {self._task!r}: a process that evaluates candidates ended in the midst of "
                "an episode: expected it to answer; see whether memory is short, and go on with "
                "--resume"
            ) from error
        self._cpu_s += sum(cpu_s for _, cpu_s in found)
        return np.concatenate([returns for returns, _ in found])

    def _begun(self) -> ProcessPoolExecutor:
        """Give the processes, started where they are not yet."""
        if self._pool is None:
            theirs, self._ours = _SPAWN.Pipe(duplex=False)
            self._pool = ProcessPoolExecutor(
                self._processes,
                mp_context=_SPAWN,
                initializer=_begin,
                initargs=(self._agent.spec, self._agent.config, self._task, theirs),
            )
        return self._pool

    def take_cpu_s(self) -> float:
        taken, self._cpu_s = self._cpu_s, 0.0
        return taken

    def close(self) -> None:
        """End the processes at once, whatever they play; a second call does nothing."""
        if self._pool is not None and self._ours is not None:
            self._ours.close()  # else it would wait for episodes in progress, which may take hours
            self._pool.shutdown(cancel_futures=True)
            self._pool = self._ours = None


_here: dict[str, Any] = {}  #: this process's own agent and environment


def _begin(spec: Spec, config: Config, task: str, trainer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the learner, not this process
    threading.Thread(
        target=_end_with, args=(trainer,), name="end with the trainer", daemon=True
    ).start()
    torch.set_num_threads(1)
    _here["agent"] = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    _here["task"], _here["spec"] = task, spec


def _end_with(trainer: Connection) -> None:
    """End this process when the trainer closes its end, or is gone."""
    with suppress(EOFError, OSError):
        trainer.recv()
    os._exit(0)


def _mean_returns(
    weights: Weights, candidates: np.ndarray, generation: int
) -> tuple[np.ndarray, float]:
    """Compute mean returns (p,) of candidates (p, n), all over the same episodes and noise.

    Returns:
        (p,) mean returns, and the CPU seconds that they took.
    """
    begun_s = time.process_time()
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
    return np.array(returns), time.process_time() - begun_s
