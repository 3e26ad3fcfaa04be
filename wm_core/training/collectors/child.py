"""One collector's process as the trainer sees it: made anew, later each time, when it dies."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from wm_core.contract.errors import EnvFault, EnvRaised, SettingsError, StoreError
from wm_core.store.disk import DiskFailed
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
from wm_core.training.collectors.process import run_collector
from wm_core.training.collectors.shared_weights import SharedWeights

MOST_ORDERS = 16  #: that wait in one process; more could fill the pipe to one that hangs
MAX_FAILURES = 5  #: in a row without one order fulfilled, after which a run ends
FIRST_WAIT_S = 0.5  #: before a process is made anew; twice as long at every failure in a row
START_S = 300.0  #: seconds in which a process may make its environments
CLOSE_S = 10.0  #: seconds in which a process may end its step and seal

log = logging.getLogger(__name__)
_SPAWN = multiprocessing.get_context("spawn")
_FINAL = {kind.__name__: kind for kind in (EnvFault, SettingsError, StoreError, DiskFailed)}


class CollectorChild:
    """Runs one collector in a process and makes it anew when that dies.

    Args:
        plan_of: makes the plan of the n-th process, n from 0.
        agent: whose weights it acts with.
        timeout_s: the most that a tick may take; None: any time.

    Attributes:
        pending: orders that it has not fulfilled.
        acts_with: updates of the weights that were sent to it last; -1 before any.
    """

    def __init__(
        self,
        plan_of: Callable[[int], CollectorPlan],
        agent: Any,
        *,
        timeout_s: float | None = None,
    ) -> None:
        self._plan_of, self._timeout_s = plan_of, timeout_s
        self._memory: Any = _SPAWN.RawArray("B", SharedWeights.size_of(agent))
        self._weights = SharedWeights(agent, self._memory)
        self.pending: deque[Collect] = deque()
        self.acts_with = -1
        self._begun = self._failures = 0  # processes begun; deaths in a row
        self._env_restarts = self._earlier_restarts = 0
        self._cpu_s = self._waited_s = 0.0  # of earlier processes
        self._again_s = 0.0  # when the next process may begin
        self._asked_s = 0.0  # when what it does now was asked for
        self._process: Any = None
        self._connection: Connection | None = None
        self._pulse: Any = None
        self._ready = self._takes_weights = False
        self._start()

    # ------------------------------------------------------------------ what the trainer asks

    @property
    def connection(self) -> Connection | None:
        """To wait on; None while there is no process."""
        return self._connection

    @property
    def pid(self) -> int | None:
        """The id of its process; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it can take an order."""
        return self._connection is not None and self._ready and len(self.pending) < MOST_ORDERS

    @property
    def restarts(self) -> int:
        """Count processes and environments that were made anew."""
        return max(0, self._begun - 1) + self._earlier_restarts + self._env_restarts

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all its processes."""
        return self._cpu_s + (self._pulse.cpu_s if self._pulse is not None else 0.0)

    def waited_s(self, now_s: float) -> float:
        """Seconds for which it has been without an order; making a process counts as none."""
        if self._pulse is None:
            return self._waited_s
        since_s = self._pulse.waiting_since_s
        return self._waited_s + self._pulse.waited_s + (now_s - since_s if since_s else 0.0)

    def order(self, order: Collect) -> None:
        """Ask for steps."""
        if not self.pending:
            self._asked_s = time.monotonic()
        self.pending.append(order)
        self._send(order)

    def offer_weights(self, updates: int) -> None:
        """Hand over the agent's present weights, unless it has not taken the last ones yet."""
        if self._ready and not self._takes_weights and updates > self.acts_with:
            self._weights.put()
            self._takes_weights, self.acts_with = True, updates
            self._send(TakeWeights())

    def answers(self) -> list[Collected]:
        """Give what it has answered; a process that is dead or hangs is replaced.

        Raises:
            EnvFault: where its environment cannot go on, or it dies again and again.
            WmError: where the store does not take its steps.
        """
        if self._connection is None:
            if time.monotonic() >= self._again_s:
                self._start()
            return []
        answers: list[Collected] = []
        why = ""
        try:
            while self._connection.poll():
                message = self._connection.recv()
                if isinstance(message, GaveUp):
                    why = self._refused(message)
                    break
                self._heard(message, answers)
        except (EOFError, OSError):
            self._process.join(CLOSE_S)
            why = f"ended with {self._process.exitcode}"
        why = why or self._hangs()
        if why:
            self._died(why)
        return answers

    def close(self) -> list[Collected]:
        """Let it end its tick and seal what it has; returns what it still answered.

        Raises:
            WmError: where the store did not take its last steps.
        """
        answers: list[Collected] = []
        if self._connection is None:
            return answers
        last: GaveUp | None = None
        until_s = time.monotonic() + (CLOSE_S if self._ready else 0.0)
        self._pulse.ends = 1.0
        self._send(None)
        try:
            while self._connection.poll(max(0.0, until_s - time.monotonic())):
                message = self._connection.recv()
                if isinstance(message, GaveUp):
                    last = message
                else:
                    self._heard(message, answers)
        except (EOFError, OSError):
            pass
        self._end(max(0.0, until_s - time.monotonic()))
        if last is not None:
            self._refused(last)
        return answers

    # ------------------------------------------------------------------ its process

    def _start(self) -> None:
        plan, self._begun = self._plan_of(self._begun), self._begun + 1
        ours, theirs = _SPAWN.Pipe()
        self._pulse = _SPAWN.RawValue(Pulse)
        self._asked_s = time.monotonic()
        self._process = _SPAWN.Process(
            target=run_collector,
            args=(plan, theirs, self._memory, self._pulse),
            name=f"collector-{plan.number}",
            daemon=True,
        )
        try:
            self._process.start()
        finally:
            theirs.close()
        self._connection, self._ready, self._takes_weights = ours, False, False
        self.acts_with, self._env_restarts = -1, 0

    def _heard(self, message: Any, answers: list[Collected]) -> None:
        if isinstance(message, Ready):
            self._ready = True
        elif isinstance(message, TookWeights):
            self._takes_weights = False
        elif isinstance(message, Collected):
            self.pending.popleft()
            self._asked_s = time.monotonic()
            self._failures, self._env_restarts = 0, message.restarts
            answers.append(message)

    def _send(self, message: Any) -> None:
        assert self._connection is not None
        with suppress(OSError):  # a closed end is noticed when it is asked for answers
            self._connection.send(message)

    def _refused(self, message: GaveUp) -> str:
        """Say why a process ended by itself; raise where another one would do no better."""
        if message.kind in _FINAL:
            raise _FINAL[message.kind](message.reason)
        return f"ended by {message.reason}"

    def _hangs(self) -> str:
        """Say that a step takes too long, or all of it; empty where nothing does."""
        now_s, beat_s, limit_s = time.monotonic(), self._pulse.beat_s, self._timeout_s
        if not self._ready:
            late = now_s - self._asked_s > START_S
            return f"did not begin within {START_S:g} s" if late else ""
        if limit_s is None or not self.pending:
            return ""
        if beat_s and now_s - beat_s > limit_s:
            return f"took more than {limit_s:g} s for a step (env.step_timeout_s)"
        still_s = now_s - max(self._asked_s, beat_s) - limit_s
        return f"did not answer for {START_S:g} s" if still_s > START_S else ""

    def _died(self, why: str) -> None:
        number = self._plan_of(self._begun).number
        self._failures += 1
        self._end(0.0)
        if self._failures >= MAX_FAILURES:
            raise EnvRaised(
                f"collector {number} failed {MAX_FAILURES} times in a row without collecting "
                f"anything, the last time it {why}"
            )
        wait_s = FIRST_WAIT_S * 2 ** (self._failures - 1)
        log.warning(
            "collector %d: its process %s; another one begins in %g s", number, why, wait_s
        )
        self._again_s = time.monotonic() + wait_s

    def _end(self, patience_s: float) -> None:
        """End the process, by force after ``patience_s``, and keep its counts."""
        assert self._connection is not None
        self._connection.close()
        if patience_s:
            self._process.join(patience_s)
        self._process.kill()
        self._process.join()
        self._cpu_s, self._waited_s = self.cpu_s, self.waited_s(time.monotonic())
        self._earlier_restarts += self._env_restarts
        self._env_restarts = 0
        self._connection = self._pulse = None
        self.pending.clear()
        self._ready = False
