"""Holds the running policy, verifies new ones in a thread and swaps them between ticks; no ROS.

The worker thread does everything slow: it opens and proves a new policy, lets it follow what the
running one sees until it has seen all of it, and frees the one that was replaced.  The control
thread only calls ``act``, ``between_ticks`` and ``prepare``, and computes nothing for a swap.
"""

from __future__ import annotations

import atexit
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from wm_core.contract.errors import PolicyFailed, SpecMismatch, WmError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyEngine, PolicyOutput, PolicyRunner
from wm_core.contract.spec import Obs, Spec
from wm_ros.commands import CommandSet
from wm_ros.policies.candidate import Candidate, TickHistory
from wm_ros.policies.shelf import Shelf, kind_of
from wm_ros.policies.source import PolicySource
from wm_ros.settings import SlotSettings

_PATIENT_TICKS = 200  #: for which a policy follows only between ticks, then also within them
_SWITCH_S = 0.0005
_PROOF_S = 120.0  #: longest time that the proof of a policy may take

Mode = Literal["start", "reinfer", "border", "rollback"]


def check_acceptable(spec: Spec, *, commands: CommandSet, running: Spec | None) -> None:
    """Raise ``SpecMismatch`` for a policy that this robot cannot run.

    Args:
        spec: of the policy.
        commands: channels by which the robot is driven.
        running: spec of the policy that runs; None before the first one.
    """
    commands.check(spec.action)
    if running is not None and spec != running:
        raise SpecMismatch(f"expected the running policy's spec {running}, got {spec}")


class PolicySlot:
    """Holds the running policy and replaces it by newer ones, and by the one before.

    Args:
        source: which policies could be running.
        settings: how policies are watched and swapped.
        seed: of every random draw of a policy.
        log: file that gets one JSON line per swap; None for none.
        accept: raises ``WmError`` for a policy that this robot cannot run.
        opens: opens a folder, and raises ``WmError`` for a policy that is not trusted.
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
        on_event: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._settings, self._seed, self._log = settings, seed, log
        self._accept, self._opens, self._on_event = accept, opens, on_event
        memory = None if log is None else log.with_name("rolled_back.json")
        self._shelf = Shelf(source, on_event, memory)
        self._running: Candidate | None = None
        self._previous: Candidate | None = None  # what a rollback brings back
        self._ready: Candidate | None = None
        self._retired: deque[Candidate] = deque()  # the worker frees them
        self._history = TickHistory()
        self._trial_until_s, self._said = 0.0, ""
        self._sent: np.ndarray | None = None  # (A,) what was sent last
        self._log_lines: deque[str] = deque(maxlen=1000)
        self._opened: PolicyRunner | None = None  # what the worker proves just now
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
        self._settings = settings
        for candidate in (self._running, self._ready, self._previous):
            if candidate is not None:
                candidate.engine.mean = settings.acts_by_mean

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
        if (opened := self._opened) is not None:
            opened.cancel()
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
            WmError: where the policy fails; within ``trial_s`` of a swap the one before comes
                back as soon as it knows the situation.
        """
        self._take_over(border=is_first)
        running = self._running
        if running is None:
            raise RuntimeError("act needs a policy: check runner first")
        entry = self._history.add(obs, prev_action, is_first)
        if (ready := self._ready) is not None and self._impatient(ready):
            self._news.set()
        try:
            out = running.engine.act(obs, prev_action, is_first)
        except PolicyFailed as error:
            if time.monotonic() < self._trial_until_s:
                self.roll_back(f"it failed: {error}")
            raise
        entry.action = out.action
        return out

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
        if self._running is not None:
            self._running.engine.prepare(sent_action)

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
            elif border:
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
        line = {
            "time_s": round(time.time(), 3),
            "version": card.version,
            "weights_sha256": card.weights_sha256,
            "learner_updates": card.learner_updates,
            "agent_steps": card.agent_steps,
            "mode": mode,
            "reinferred_steps": candidate.steps,
            "action_difference": candidate.difference,
            "because": candidate.back,
            "swaps": self.swaps,
            "tick": self._history.ticks,
        }
        self._log_lines.append(json.dumps(line))
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
        running = None if newest is None else (newest.folder, newest.identity)
        for folder in self._shelf.worth_trying(running):
            candidate = None if self._stop.is_set() else self._load(folder)
            if candidate is not None:
                self.loaded += 1
                with self._lock:
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
            while not self._stop.is_set() and candidate.follow(self._history, all_of_it=all_of_it):
                pass
            if (sent := self._sent) is not None and candidate.steps:
                candidate.prepare(sent)
        except WmError as error:
            if candidate.withdraw():
                self._take_away(candidate)
                self._retired.append(candidate)
                self._shelf.refuse(candidate.folder, error)

    def _load(self, folder: Path) -> Candidate | None:
        """Open and prove a policy, and let it see the last seconds; None where it is refused."""
        bound = None
        try:
            runner = self._opened = self._opens(folder)
            bound = threading.Timer(_PROOF_S, runner.cancel)
            bound.start()
            self._accept(runner)
            runner.prove(PolicyFolder(folder), max_tolerance=self._settings.max_tolerance or None)
            candidate = self._candidate(runner, folder)
            while candidate.follow(self._history, all_of_it=False):
                pass
            if not self._follows:  # that was its trial; it begins with an episode
                candidate.engine.reset()
            return candidate
        except WmError as error:
            if not self._stop.is_set():
                self._shelf.refuse(folder, error)
            if self._opened is not None:
                self._opened.close()
            return None
        finally:
            self._opened = None
            if bound is not None:
                bound.cancel()

    def _candidate(self, runner: PolicyRunner, folder: Path) -> Candidate:
        settings, spec = self._settings, runner.spec
        mean, seed = settings.acts_by_mean, self._seed + runner.card.version
        engine = PolicyEngine(runner, seed=seed, mean=mean, estimates=("surprise",))
        candidate = Candidate(engine, folder, since=self._history.ticks)
        candidate.try_()
        self._history.keep(max(2, round(settings.history_s / spec.period_s)))
        return candidate

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
        """Append waiting lines to the log; where the disk refuses they wait for the next time."""
        self._shelf.write()
        path = self._log
        if path is None or not self._log_lines:
            return
        lines = [self._log_lines.popleft() for _ in range(len(self._log_lines))]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        except OSError:
            self._log_lines.extendleft(reversed(lines))
