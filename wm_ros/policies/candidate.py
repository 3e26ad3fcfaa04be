"""Lets a policy that is to take over follow what the running one sees; no ROS.

Its latent is inferred from what was seen and done, so it knows the situation when it takes over,
and it has answered every observation of the last seconds before a robot obeys it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wm_core.contract.errors import PolicyFailed
from wm_core.contract.runner import PolicyEngine
from wm_core.contract.spec import Obs
from wm_ros.policies.deadline import TRIES, Deadline, slow


@dataclass(slots=True)
class HistoryEntry:
    """Holds what the policy was given at one tick, and what it answered."""

    tick: int
    obs: Obs
    prev_action: np.ndarray  #: (A,) in [-1, 1]
    is_first: bool
    action: np.ndarray | None = None  #: (A,) of the policy that ran; None: not yet, or it failed


class TickHistory:
    """Keeps the last ticks for a policy that is to follow them; for two threads.

    Args:
        keep: how many ticks are kept.
    """

    def __init__(self, keep: int = 1) -> None:
        self._entries: deque[HistoryEntry] = deque(maxlen=keep)
        self._lock = threading.Lock()
        self.ticks = 0  #: how many there have been
        self.answered = 0  #: how many of them are over: their command has left

    def keep(self, ticks: int) -> None:
        """Keep this many from now on."""
        with self._lock:
            if self._entries.maxlen != ticks:
                self._entries = deque(self._entries, maxlen=ticks)

    @property
    def kept(self) -> int:
        """Count the ticks that are kept at most."""
        return self._entries.maxlen or 1

    def add(self, obs: Obs, prev_action: np.ndarray, is_first: bool) -> HistoryEntry:
        """Take what the policy is given at this tick; ``prev_action`` is (A,)."""
        entry = HistoryEntry(self.ticks, obs, prev_action, is_first)
        with self._lock:
            self._entries.append(entry)
        self.ticks += 1
        return entry

    def after(self, tick: int, *, all_of_it: bool) -> list[HistoryEntry]:
        """List what came after ``tick``, from the last start of an episode on.

        Args:
            tick: number of a tick.
            all_of_it: also the tick that goes on just now.
        """
        end = self.ticks if all_of_it else self.answered
        with self._lock:
            entries = [entry for entry in self._entries if tick < entry.tick < end]
        firsts = [i for i, entry in enumerate(entries) if entry.is_first]
        return entries[firsts[-1] :] if firsts else entries


@dataclass(slots=True)
class Candidate:
    """Holds a policy that is to take over, and how far it has come."""

    engine: PolicyEngine
    folder: Path
    since: int = 0  #: the tick at which it came
    back: str = ""  #: why it comes back after it was replaced once; empty for a new one
    upto: int = -1  #: the last tick that it has seen
    steps: int = 0  #: how many it has seen
    apart: float = 0.0  #: sum of how far its actions were from those of the running policy
    compared: int = 0
    taken: bool = False  #: it has taken over, or never will: nobody else may run it
    failures: int = 0  #: steps in a row, while it ran, that it has failed at
    last_error: PolicyFailed | None = None  #: of its last step, where that failed
    condemned: str = ""  #: why another one is to run in its place; empty: it may go on
    deadline: Deadline = field(default_factory=lambda: Deadline(math.inf))
    lock: threading.Lock = field(default_factory=threading.Lock)  #: held while it runs

    @property
    def identity(self) -> str:
        """Give the hash of the policy; empty where no manifest says it."""
        manifest = self.engine.runner.manifest
        return "" if manifest is None else manifest.policy.sha256

    @property
    def difference(self) -> float | None:
        """Give how far its actions are from the running policy's on average; None: not known."""
        return self.apart / self.compared if self.compared else None

    def follow(self, history: TickHistory, *, all_of_it: bool) -> bool:
        """See one more tick; False where there is none, or it has taken over.

        Raises:
            WmError: where it fails on what the running policy was given.
        """
        with self.lock:
            entries = [] if self.taken else history.after(self.upto, all_of_it=all_of_it)
            if not entries:
                return False
            entry = entries[0]
            # The oldest entry kept has no past: the new latent begins there as in an episode.
            is_first = entry.is_first or self.upto < 0 or entry.tick > self.upto + 1
            out = self.engine.act(entry.obs, entry.prev_action, is_first)
            self.upto, self.steps = entry.tick, self.steps + 1
            if entry.action is not None:
                self.apart += float(np.abs(out.action - entry.action).mean())
                self.compared += 1
            return True

    def withdraw(self) -> bool:
        """Keep it from taking over; False where it has already."""
        with self.lock:
            free = not self.taken
            self.taken = True
        return free

    def prepare(self, sent_action: np.ndarray) -> None:
        """Run what its next step needs no observation for, after what was sent, (A,)."""
        with self.lock:
            if not self.taken:
                self.engine.prepare(sent_action)

    def try_(self) -> None:
        """Run it on zeros, so that nothing is done for the first time on the robot.

        Raises:
            WmError: where it fails on that; ``PolicySlow`` where it never holds its deadline.
        """
        runner, limit_s = self.engine.runner, self.deadline.limit_s
        spec, engine = runner.spec, PolicyEngine(runner, seed=0)  # whose draws nobody misses
        zero, least_s = np.zeros(spec.action.size, np.float32), math.inf
        for _ in range(TRIES):
            began = time.thread_time()
            engine.act(spec.zeros(), zero, True)
            engine.prepare(zero)
            least_s = min(least_s, time.thread_time() - began)
            if least_s <= limit_s:
                break
        else:
            raise slow(least_s, limit_s)
