"""Holds the running policy, verifies new ones in a thread and swaps them between ticks; no ROS.

The worker thread does everything slow: it opens and proves a new policy, lets it follow what the
running one sees until it has seen all of it, and frees the one that was replaced.  The control
thread only calls ``act``, ``between_ticks`` and ``prepare``, and computes nothing for a swap.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from wm_core.contract.errors import PolicyFailed, PolicySlow, WmError
from wm_core.contract.runner import PolicyOutput, PolicyRunner
from wm_core.contract.spec import Obs
from wm_ros.policies.candidate import Candidate, TickHistory
from wm_ros.policies.loading import Loader, check_running_spec
from wm_ros.policies.shelf import Shelf, kind_of
from wm_ros.policies.source import PolicySource
from wm_ros.policies.swap_log import SwapLog
from wm_ros.settings import SlotSettings

_PATIENT_TICKS = 200  #: for which a policy follows only between ticks, then also within them
_SWITCH_S = 0.0005
_FAILURES = 5  #: steps in a row after which a policy that ran well once gives way

Mode = Literal["start", "reinfer", "border", "rollback"]


class PolicySlot:
    """Holds the running policy and replaces it by newer ones, and by the one before.

    Args:
        source: which policies could be running.
        settings: how policies are watched and swapped.
        seed: of every random draw of a policy.
        log: file that gets one JSON line per swap; None for none.
        accept: raises ``WmError`` for a policy that this robot cannot run.
        opens: opens a folder, and raises ``WmError`` for a policy that is not trusted.
        simulated: time stands still while a policy thinks.
        on_first: called with a proven policy that will be the first to run, if any is (worker).
        on_event: called with one sentence on what was loaded, refused or swapped (any thread).
    """

    def __init__(
        self,
        source: PolicySource,
        settings: SlotSettings,
        *,
        seed: int = 0,
        log: Path | None = None,
        accept: Callable[[PolicyRunner], None] = lambda runner: None,
        opens: Callable[[Path], PolicyRunner] = PolicyRunner.open,
        simulated: bool = False,
        on_first: Callable[[PolicyRunner], None] = lambda runner: None,
        on_event: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._settings, self._log = settings, SwapLog(log)
        self._on_event, self._on_first = on_event, on_first
        memory = None if log is None else log.with_name("rolled_back.json")
        self._shelf = Shelf(source, on_event, memory)
        self._running: Candidate | None = None
        self._previous: Candidate | None = None  # what a rollback brings back
        self._ready: Candidate | None = None
        self._retired: deque[Candidate] = deque()  # the worker frees them
        self._history = TickHistory()
        self._loader = Loader(
            settings,
            self._history,
            seed=seed,
            accept=accept,
            opens=opens,
            admits=self._admit,
            simulated=simulated,
        )
        self._trial_until_s, self._said = 0.0, ""
        self._sent: np.ndarray | None = None  # (A,) what was sent last
        self.loaded = self.swaps = self.rollbacks = 0
        self._lock, self._stop, self._news = threading.Lock(), threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def runner(self) -> PolicyRunner | None:
        """Return the policy that acts now; None before the first one."""
        return None if self._running is None else self._running.engine.runner

    @property
    def refusals(self) -> list[str]:
        return self._shelf.refusals

    def problem(self) -> str:
        """Say why no policy, or no newer one, runs; empty where there is nothing to say."""
        return self._shelf.problem()

    def use(self, settings: SlotSettings) -> None:
        """Act, look and swap by changed settings from now on (the control thread)."""
        with self._lock:  # one that is being proven takes them when it is ready
            self._settings = self._loader.settings = settings
            for candidate in (self._running, self._ready, self._previous):
                if candidate is not None:
                    self._loader.apply_settings(candidate)

    def start(self) -> None:
        """Start the thread that watches for new policies."""
        if self._thread is None:
            # A tick that waits for the interpreter's lock gets it from the worker this soon.
            sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_S))
            self._thread = threading.Thread(target=self._watch, name="policy-slot", daemon=True)
            self._thread.start()
            atexit.register(self.close)  # an interpreter that ends under a thread may abort

    def close(self) -> None:
        """Stop watching, break off a proof, write the rest of the log; may be called twice."""
        atexit.unregister(self.close)
        self._stop.set()
        self._news.set()
        self._loader.cancel()
        if self._thread is not None:
            self._thread.join(timeout=30.0)  # opening a file cannot be broken off
            self._thread = None
        self._write_log()

    # ------------------------------------------------------------------------ control thread

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: bool) -> PolicyOutput:
        """Run one step; a new policy that knows the situation takes over first.

        Args:
            obs: images (H, W, C) uint8 and vectors (n,) float32.
            prev_action: (A,) in [-1, 1], what was really sent last.
            is_first: no action of this episode led here.

        Raises:
            WmError: where the policy fails or takes too long.  Within ``trial_s`` of a swap, or
                when it goes on, another one takes its place: the one before, or one on the disk.
        """
        self._take_over(border=is_first)
        running = self._running
        if running is None:
            raise RuntimeError("act needs a policy: check runner first")
        entry = self._history.add(obs, prev_action, is_first)
        if (ready := self._ready) is not None and self._impatient(ready):
            self._news.set()
        try:
            out = self._step(running, obs, prev_action, is_first)
        except PolicyFailed as error:
            self._failed(running, error)
            raise
        running.failures, running.condemned = 0, ""
        entry.action = out.action
        return out

    def _step(
        self, running: Candidate, obs: Obs, prev_action: np.ndarray, is_first: bool
    ) -> PolicyOutput:
        ready = self._ready
        if isinstance(running.last_error, PolicySlow) and ready is not None and ready.back:
            raise running.last_error  # its time is better spent on its successor
        with running.deadline.timed():
            out = running.engine.act(obs, prev_action, is_first)
        running.deadline.step()
        running.last_error = None
        return out

    def _failed(self, running: Candidate, error: PolicyFailed) -> None:
        """Have another policy take the place of one that fails or is too slow, if it goes on."""
        running.last_error, running.failures = error, running.failures + 1
        soon = time.monotonic() < self._trial_until_s
        if not (soon or isinstance(error, PolicySlow) or running.failures >= _FAILURES):
            return
        why = f"{'it is too slow' if isinstance(error, PolicySlow) else 'it failed'}: {error}"
        if self._previous is not None:
            self.roll_back(why)
        elif not running.condemned and (self._ready is None or not self._ready.back):
            running.condemned = why
            self._news.set()

    def between_ticks(self) -> None:
        """Swap in a policy that knows the situation; call it right after a command was sent."""
        self._history.answered = self._history.ticks
        self._take_over(border=False)

    def prepare(self, sent_action: np.ndarray) -> None:
        """Run what the next step needs no observation for; call it once a command has left.

        Args:
            sent_action: (A,) in [-1, 1], what was really sent.
        """
        self._sent = sent_action
        if self._ready is not None:
            self._news.set()
        if (running := self._running) is not None and running.last_error is None:
            with running.deadline.timed():
                running.engine.prepare(sent_action)

    def roll_back(self, why: str) -> str:
        """Run the policy before the present one again, and never again the present one.

        It takes over as soon as it knows the situation.

        Args:
            why: for people.

        Returns:
            What will happen, for people; empty where there is none to go back to.
        """
        running, previous = self._running, self._previous
        if running is None or previous is None:
            return ""
        version = running.engine.runner.card.version
        self._shelf.ban(running.identity)
        self._previous, self._trial_until_s = None, 0.0
        previous.engine.reset()
        back = Candidate(previous.engine, previous.folder, since=self._history.ticks, back=why)
        back.deadline = self._loader.deadline(previous.engine.runner)
        with self._lock:
            waiting, self._ready = self._ready, back
        self._retired.extend([] if waiting is None else [waiting])
        self._news.set()
        text = f"version {version} is rolled back to {back.engine.runner.card.version}: {why}"
        self._on_event(text)
        return text

    def _take_over(self, *, border: bool) -> None:
        """Swap in the candidate where it may: it waits for no tick and does not run just now."""
        ready, history = self._ready, self._history
        if ready is None or not ready.lock.acquire(blocking=False):
            return
        try:
            knows = ready.upto == history.ticks - 1
            if ready.taken:
                return
            if self._running is None:
                mode: Mode = "start"
            elif ready.back and (knows or border or not self._follows):
                mode = "rollback"
            elif border or (self._running.condemned and not self._follows):
                mode = "border"
            elif self._follows and knows:
                mode = "reinfer"
            else:
                return
            self._swap(ready, mode)
        finally:
            ready.lock.release()

    def _impatient(self, candidate: Candidate) -> bool:
        """Whether it has not caught up between the ticks, and may run beside the running one."""
        return self._history.ticks - candidate.since > _PATIENT_TICKS

    @property
    def _follows(self) -> bool:
        return self._settings.swap_mode == "reinfer"

    def _take_away(self, candidate: Candidate) -> None:
        """Let it wait no longer; a newer one that came in the meantime stays."""
        with self._lock:
            if self._ready is candidate:
                self._ready = None

    def _swap(self, candidate: Candidate, mode: Mode) -> None:
        replaced, kept = self._running, self._previous
        self._running, candidate.taken = candidate, True
        self._take_away(candidate)
        self._previous = None if mode == "rollback" else replaced
        self._retired.extend(
            c for c in (kept, replaced if mode == "rollback" else None) if c is not None
        )
        self._trial_until_s = time.monotonic() + self._settings.trial_s
        card = candidate.engine.runner.card
        self.swaps += int(mode != "start")
        self.rollbacks += int(mode == "rollback")
        self._log.add(
            card,
            mode=mode,
            reinferred_steps=candidate.steps,
            action_difference=candidate.difference,
            because=candidate.back,
            swaps=self.swaps,
            tick=self._history.ticks,
        )
        self._on_event(f"policy version {card.version} runs (mode {mode})")

    # ------------------------------------------------------------------------- worker thread

    def look(self) -> bool:
        """Load the newest good policy, if it is new, and return whether that worked.

        The worker calls this; calling it before ``start`` loads the first policy at once.
        """
        ready = self._ready
        if ready is not None and ready.back:
            return False
        newest = ready or self._running
        condemned = "" if newest is None else newest.condemned
        running = None if newest is None else (newest.folder, newest.identity)
        for folder in self._shelf.worth_trying(running, older_too=bool(condemned)):
            candidate = None if self._stop.is_set() else self._load(folder)
            if candidate is not None:
                self.loaded += 1
                if condemned and newest is not None:
                    candidate.back = condemned
                    self._shelf.ban(newest.identity)
                with self._lock:  # settings may have changed during its proof
                    self._loader.apply_settings(candidate)
                    waiting, self._ready = self._ready, candidate
                if waiting is not None and waiting.withdraw():
                    self._retired.append(waiting)
                return True
        self._say_problem()
        return False

    def follow(self) -> None:
        """Let a policy that is to take over see the ticks that it has not seen yet."""
        candidate = self._ready
        if candidate is None or not (self._follows or candidate.back):
            return
        try:
            all_of_it = candidate.steps > _PATIENT_TICKS
            for _ in range(self._history.kept):  # a slow one must not keep the others waiting
                if self._stop.is_set() or not candidate.follow(self._history, all_of_it=all_of_it):
                    break
            if (sent := self._sent) is not None and candidate.steps:
                candidate.prepare(sent)
        except WmError as error:
            if candidate.withdraw():
                self._take_away(candidate)
                self._retired.append(candidate)
                self._shelf.refuse(candidate.folder, error)

    def _load(self, folder: Path) -> Candidate | None:
        """Open and prove a policy, and let it see the last seconds; None where it is refused."""
        try:
            return self._loader.load(folder)
        except WmError as error:
            if not self._stop.is_set():
                self._shelf.refuse(folder, error)
            return None

    def _admit(self, candidate: Candidate) -> None:
        """Raise ``SpecMismatch`` for a policy that cannot follow the one that runs by now."""
        waiting = self._ready
        if self._running is None and waiting is not None and waiting.withdraw():
            self._take_away(waiting)  # or it might run after what follows
            self._retired.append(waiting)
        if (runner := self.runner) is None:
            self._on_first(candidate.engine.runner)
        else:
            check_running_spec(candidate.engine.runner.spec, runner.spec)

    def _watch(self) -> None:
        look_s = time.monotonic() + self._settings.policy_poll_s
        while not self._stop.is_set():
            self._news.wait(max(0.0, look_s - time.monotonic()))
            self._news.clear()
            try:
                self.follow()
                if time.monotonic() >= look_s:
                    self.look()
            except Exception as error:  # the running policy goes on, whatever a file does
                self._shelf.note(f"a policy refused: {error}")
            if time.monotonic() >= look_s:
                look_s = time.monotonic() + self._settings.policy_poll_s
                self._write_log()
            while self._retired:
                self._retired.popleft().engine.runner.close()

    def _say_problem(self) -> None:
        """Say once why there is no policy at all."""
        text = "" if self._running is not None or self._ready is not None else self.problem()
        if kind_of(text) != self._said:
            self._said = kind_of(text)
            if text and text not in self.refusals:
                self._on_event(f"no policy: {text}")

    # ------------------------------------------------------------------------------- reports

    def counters(self) -> dict[str, int]:
        """Give all counters by name."""
        runner = self.runner
        return {
            "policy_version": -1 if runner is None else runner.card.version,
            "policy_learner_updates": 0 if runner is None else runner.card.learner_updates,
            "policies_loaded": self.loaded,
            "policies_refused": self._shelf.refused,
            "swaps": self.swaps,
            "rollbacks": self.rollbacks,
        }

    def _write_log(self) -> None:
        self._shelf.write()
        self._log.write()
