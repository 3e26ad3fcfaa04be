"""The trainer's side of the collectors: orders steps, hands over weights, takes in answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

from wm_core.replay.ratio import ReplayRatio
from wm_core.store.ledger import Ledger
from wm_core.store.reader import Store
from wm_core.training.collect import EpisodeResult
from wm_core.training.collectors.child import CollectorChild
from wm_core.training.collectors.governor import Governor, Waits
from wm_core.training.collectors.messages import Collect, CollectorPlan
from wm_core.training.sources import POLL_S, ExperienceSource

PlanOf = Callable[[int, int], CollectorPlan]  #: of (collector, process of that collector)


class CollectorProcesses(ExperienceSource):
    """Collectors in processes of their own, which act while the learner learns.

    Weights are handed over as often as a collector takes them, which is before each chunk of
    steps.  What is collected when depends on the machine's pace: no two runs are alike.

    Args:
        plan_of: makes the plan of a collector's process.
        agent: whose weights they act with.
        store: what their steps arrive in.
        stop: ends the waiting for steps.
        collectors: how many processes.
        prefill: agent steps of random actions.
        steps: agent steps in the store at which the source ends.
        chunk: agent steps of one order.
        timeout_s: the most that a tick of a collector may take; None: any time.
        ledger: of the store; closed last, so that its log is folded once nobody writes.
    """

    collects = True

    def __init__(
        self,
        plan_of: PlanOf,
        agent: Any,
        store: Store,
        stop: threading.Event,
        *,
        collectors: int,
        prefill: int,
        steps: int,
        chunk: int,
        timeout_s: float | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._store, self._stop, self._ledger = store, stop, ledger
        self._prefill, self.steps_goal, self._chunk = prefill, steps, chunk
        self._governor: Governor | None = None
        self._ratio: ReplayRatio | None = None
        self._ended: list[EpisodeResult] = []
        self._learner_waited_s, self._waits = 0.0, Waits()
        self._children: list[CollectorChild] = []
        try:
            for number in range(collectors):
                made = CollectorChild(_plans_of(plan_of, number), agent, timeout_s=timeout_s)
                self._children.append(made)
        except BaseException:
            self.close()
            raise

    def pace(self, ratio: ReplayRatio) -> None:
        self._ratio = ratio
        self._governor = Governor(
            ratio,
            chunk=self._chunk,
            collectors=len(self._children),
            goal=self.steps_goal or 0,
        )

    @property
    def env_restarts(self) -> int:
        return sum(child.restarts for child in self._children)

    @property
    def pids(self) -> list[int | None]:
        """The ids of the processes, None for one that is being made anew."""
        return [child.pid for child in self._children]

    def cpu_s(self) -> float:
        return sum(child.cpu_s for child in self._children)

    def more(self, version: int) -> bool:
        self._tend(version, starved=True)
        if self._ordered == 0 and self._store.steps >= (self.steps_goal or 0):
            return False
        begun_s = time.monotonic()
        heard = [c.connection for c in self._children if c.connection is not None]
        if heard:
            wait(heard, POLL_S)
        else:
            self._stop.wait(POLL_S)
        self._tend(version)
        self._learner_waited_s += time.monotonic() - begun_s
        return True

    def poll(self, version: int) -> bool:
        before = self._store.steps
        self._tend(version)
        return bool(self._ended) or self._store.steps > before

    def episodes(self) -> list[EpisodeResult]:
        ended, self._ended = self._ended, []
        return ended

    def standing(self) -> dict[str, float | str]:
        now_s = time.monotonic()
        waited_s = sum(child.waited_s(now_s) for child in self._children)
        mean_s = waited_s / max(1, len(self._children))
        told = self._waits.at(now_s, self._learner_waited_s, mean_s)
        alive = sum(child.is_ready for child in self._children)
        return {"collectors": len(self._children), "ready": alive} | told

    def settle(self) -> None:
        for child in self._children:
            self._take(child.close())
        self._store.refresh()

    def close(self) -> None:
        try:
            for child in self._children:
                child.close()
        finally:
            if self._ledger is not None:
                self._ledger.close()

    def _is_idle(self) -> bool:
        """Tell whether nothing is ordered though more steps are wanted in the end."""
        return self._ordered == 0 and self._store.steps < (self.steps_goal or 0)

    @property
    def _ordered(self) -> int:
        return sum(order.steps for child in self._children for order in child.pending)

    def _tend(self, version: int, *, starved: bool = False) -> None:
        """Take in what was answered, hand over weights, and order what there is room for.

        A learner that is ``starved`` gets steps in any case: of those that there are, it may be
        able to use none.
        """
        assert self._ratio is not None
        assert self._governor is not None
        if self._stop.is_set():  # the processes may have been told to end too
            return
        answered = [self._take(child.answers()) for child in self._children]
        if any(answered):
            self._store.refresh()
        for child in self._children:
            child.offer_weights(self._ratio.updates)
        while True:
            ready = [child for child in self._children if child.is_ready]
            has_room = self._governor.room(self._store.steps, self._ordered) > 0
            if not ready or not (has_room or (starved and self._is_idle())):
                return
            least = min(ready, key=lambda child: len(child.pending))
            coming = self._store.steps + self._ordered
            least.order(Collect(self._chunk, coming < self._prefill, version))

    def _take(self, answers: list[Any]) -> bool:
        for answer in answers:
            self._ended += answer.episodes
        return bool(answers)


def _plans_of(plan_of: PlanOf, number: int) -> Callable[[int], CollectorPlan]:
    return lambda attempt: plan_of(number, attempt)
