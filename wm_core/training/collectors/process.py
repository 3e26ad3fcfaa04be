"""What runs in a collector's process: environments, a copy of the network, recorders.

Steps go into the store by the way that all others take, and an order is answered when its steps
are durable there.  The process ends with the trainer, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from wm_core.agents.agent import AgentCore
from wm_core.contract.errors import WmError
from wm_core.contract.spec import Obs
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training.agent_actor import AgentActor
from wm_core.training.collect import Collector, EnvActor, RandomActor
from wm_core.training.collectors.messages import (
    Collect,
    Collected,
    CollectorPlan,
    GaveUp,
    Pulse,
    Ready,
    TakeWeights,
    TookWeights,
)
from wm_core.training.collectors.shared_weights import SharedWeights
from wm_core.training.exploration import noise_of
from wm_core.training.opening import open_env

LOOK_S = 0.5  #: seconds between two looks, without an order, at whether to end
_PR_SET_PDEATHSIG = 1


class _Ended(Exception):
    """Is raised within a tick where the trainer wants the process to end."""


def run_collector(plan: CollectorPlan, connection: Connection, memory: Any, pulse: Pulse) -> None:
    """Obey orders until the connection closes.

    Args:
        plan: of the process.
        connection: to the trainer.
        memory: where new weights are laid.
        pulse: where the process shows that it lives.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the trainer, which ends this

    def on_terminate(number: int, _: object) -> None:  # after this tick, once all is sealed
        pulse.ends = 1.0

    signal.signal(signal.SIGTERM, on_terminate)
    _end_with(plan.trainer)
    torch.set_num_threads(1)
    try:
        with _opened(plan, pulse) as collector:
            _obey(plan, collector, connection, memory, pulse)
    except (_Ended, EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except Exception as error:  # the trainer decides what becomes of it
        kind = type(error).__name__ if isinstance(error, WmError) else ""
        with suppress(OSError):
            connection.send(GaveUp(kind, str(error) if kind else repr(error)))


def _end_with(trainer: int) -> None:
    """Have the kernel end this process when the trainer is killed, even within a step."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != trainer:
        os._exit(1)


@contextmanager
def _opened(plan: CollectorPlan, pulse: Pulse) -> Iterator[Collector]:
    """Make the environments and their recorders; what they hold is sealed at the end."""
    train, draws = plan.config.train, np.random.default_rng(plan.entropy)
    adapters = [
        open_env(plan.task, seed=draws, spec=plan.spec, env=plan.config.env)[0]
        for _ in range(train.envs)
    ]
    ledger = Ledger(plan.root / LEDGER_NAME)
    recorders = [
        EnvRecorder(
            plan.root,
            ledger,
            robot=f"sim-{plan.number * train.envs + i}",
            task=plan.task,
            spec=plan.spec,
        )
        for i in range(train.envs)
    ]
    collector = Collector(adapters, recorders, plan.spec)
    try:
        yield collector
    finally:
        try:
            collector.close()
        finally:
            ledger.close()
            pulse.cpu_s = time.process_time()


def _obey(
    plan: CollectorPlan, collector: Collector, connection: Connection, memory: Any, pulse: Pulse
) -> None:
    agent = AgentCore(plan.spec, plan.config, generator=torch.Generator().manual_seed(0))
    weights, (explore, noise) = SharedWeights(agent, memory), _draws(plan)
    how = plan.config.train.explore
    explorer = RandomActor(plan.spec.action, explore, how)
    pink = noise_of(how.policy_noise, agent.head.noise_shape, explore)
    actor = AgentActor(agent, noise, noise=pink)
    connection.send(Ready())
    orders: deque[Collect] = deque()
    while True:
        pulse.waiting_since_s = time.monotonic()
        while not orders or connection.poll():
            message = _next(connection, pulse)
            if message is None:
                return
            if isinstance(message, TakeWeights):
                weights.take()
                connection.send(TookWeights())
            else:
                orders.append(message)
        waited_s = time.monotonic() - pulse.waiting_since_s
        pulse.waiting_since_s, pulse.waited_s = 0.0, pulse.waited_s + waited_s
        order = orders.popleft()
        who: EnvActor = explorer if order.explore else actor
        if who is actor:
            actor.version = order.version
        ended = collector.collect(_Watched(who, pulse, plan.trainer), order.steps)
        pulse.beat_s = 0.0
        collector.seal()
        connection.send(Collected(tuple(ended), collector.restarts))


def _next(connection: Connection, pulse: Pulse) -> Any:
    """Wait for the trainer's next message; None where the process is to end."""
    while not connection.poll(LOOK_S):
        if pulse.ends:
            return None
    return connection.recv()


def _draws(plan: CollectorPlan) -> tuple[np.random.Generator, torch.Generator]:
    """Make the generators of random actions, and of the policy's noise."""
    one, other = np.random.SeedSequence(plan.entropy).spawn(2)
    word = int(other.generate_state(1, np.uint64)[0] >> np.uint64(1))
    return np.random.default_rng(one), torch.Generator().manual_seed(word)


class _Watched:
    """Lets an actor act as long as the trainer wants it, and shows each tick that it does."""

    def __init__(self, actor: EnvActor, pulse: Pulse, trainer: int) -> None:
        self._actor, self._pulse, self._trainer = actor, pulse, trainer
        self.version = actor.version

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Choose actions (N, A) as the actor does."""
        self._pulse.beat_s, self._pulse.cpu_s = time.monotonic(), time.process_time()
        if os.getppid() != self._trainer:
            os._exit(1)  # without a word: another trainer may have taken over the store
        if self._pulse.ends:
            raise _Ended
        return self._actor.act(obs, prev_action, is_first)
