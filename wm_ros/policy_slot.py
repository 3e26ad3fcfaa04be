"""Holds the running policy, verifies new ones in a thread and swaps them between ticks; no ROS.

A worker thread does everything slow.  The control thread only calls ``act`` and ``between_ticks``.
The latent of the old policy means nothing to the new one, so the new one either re-infers its own
from the last seconds of what the old one saw and did, or waits for an episode to begin.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from wm_core.contract.errors import SpecMismatch, WmError
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyEngine, PolicyOutput, PolicyRunner
from wm_core.contract.spec import Obs, Spec
from wm_ros.commands import CommandSet
from wm_ros.settings import SlotSettings

CATCH_UP_STEPS = 2  #: most steps of history that are left for the control thread to infer


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


class PolicySource(Protocol):
    """Says which policy folder should be running."""

    def latest(self) -> Path | None:
        """Find the newest policy folder, or None while there is none."""
        ...


class FolderSource:
    """Finds the newest policy in a folder: the folder itself, or its highest numbered version."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def latest(self) -> Path | None:
        if PolicyFolder(self.root).onnx.exists():
            return self.root
        if not self.root.is_dir():
            return None
        numbered = [p for p in self.root.iterdir() if p.name.isdecimal()]
        versions = [p for p in numbered if PolicyFolder(p).manifest.exists()]
        return max(versions, key=lambda p: int(p.name), default=None)


class HistoryEntry(NamedTuple):
    """Holds what the policy was given at one tick."""

    tick: int
    obs: Obs
    prev_action: np.ndarray
    is_first: bool


@dataclass(slots=True)
class _Candidate:
    engine: PolicyEngine
    upto: int = -1  # the last tick from which its latent was inferred
    steps: int = 0


class PolicySlot:
    """Holds the running policy and replaces it by newer ones.

    Args:
        source: which policy should be running.
        settings: how policies are watched and swapped.
        seed: of every random draw of a policy.
        log: file that gets one JSON line per swap; None for none.
        accept: raises ``WmError`` for a policy that this robot cannot run.
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
        on_event: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._source, self._settings = source, settings
        self._seed, self._log = seed, log
        self._accept, self._on_event = accept, on_event
        self._engine: PolicyEngine | None = None
        self._ready: _Candidate | None = None
        self._history: deque[HistoryEntry] = deque(maxlen=1)
        self._tick = 0
        self._seen: tuple[Path, int] | None = None
        self._log_lines: deque[str] = deque(maxlen=1000)
        self.loaded = self.refused = self.swaps = 0
        self.refusals: list[str] = []  #: the latest 20 reasons
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def runner(self) -> PolicyRunner | None:
        """Return the policy that acts now; None before the first one."""
        return None if self._engine is None else self._engine.runner

    def use(self, settings: SlotSettings) -> None:
        """Act, look and swap by changed settings from now on (the control thread)."""
        self._settings, mean = settings, settings.exploration == "mean"
        if self._engine is not None:
            self._engine.mean = mean
        if (ready := self._ready) is not None:
            ready.engine.mean = mean

    def start(self) -> None:
        """Start the thread that watches for new policies."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="policy-slot", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop watching and write the rest of the log; may be called twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10.0)
            self._thread = None
        self._write_log()

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: bool) -> PolicyOutput:
        """Run one step; a new policy that waits for an episode to begin takes over first.

        Args:
            obs: images (H, W, C) uint8 and vectors (n,) float32.
            prev_action: (A,) in [-1, 1], what was really sent last.
            is_first: no action of this episode led here.
        """
        if is_first and self._ready is not None:
            self._swap(self._ready, "border" if self._engine is not None else "start")
        if self._engine is None:
            raise RuntimeError("act needs a policy: check runner first")
        with self._lock:
            self._history.append(HistoryEntry(self._tick, obs, prev_action, is_first))
        self._tick += 1
        return self._engine.act(obs, prev_action, is_first)

    def prepare(self, sent_action: np.ndarray) -> None:
        """Run what the next step needs no observation for; call it once a command has left.

        Args:
            sent_action: (A,) in [-1, 1], what was really sent.
        """
        if self._engine is not None:
            self._engine.prepare(sent_action)

    def between_ticks(self) -> None:
        """Swap in a policy that is ready; call it right after a command was sent."""
        ready = self._ready
        if ready is None:
            return
        if self._engine is None:
            self._swap(ready, "start")
        elif self._settings.swap_mode == "reinfer":
            try:
                self._replay(ready, self._history_after(ready.upto))
            except WmError as error:
                self._take_away(ready)
                self._refuse(f"policy version {ready.engine.runner.card.version}", error)
                return
            self._swap(ready, "reinfer")

    def look(self) -> bool:
        """Load the policy that the source names, if it is new, and return whether that worked.

        The worker calls this; calling it before ``start`` loads the first policy at once.
        """
        folder = self._source.latest()
        if folder is None:
            return False
        key = (folder, _modified_ns(folder))
        if key == self._seen:
            return False
        self._seen = key
        try:
            runner = PolicyRunner.load(folder)
            self._accept(runner)
            candidate = self._prepare(runner)
        except WmError as error:
            self._refuse(str(folder.name), error)
            return False
        self.loaded += 1
        with self._lock:
            self._ready = candidate
        return True

    def counters(self) -> dict[str, int]:
        """Give all counters by name."""
        runner = self.runner
        return {
            "policy_version": -1 if runner is None else runner.card.version,
            "policy_learner_updates": 0 if runner is None else runner.card.learner_updates,
            "policies_loaded": self.loaded,
            "policies_refused": self.refused,
            "swaps": self.swaps,
        }

    def _watch(self) -> None:
        while not self._stop.wait(self._settings.policy_poll_s):
            try:
                self.look()
            except Exception as error:  # the running policy goes on, whatever a file does
                self._refuse("a policy", error)
            self._write_log()

    def _prepare(self, runner: PolicyRunner) -> _Candidate:
        """Warm up an engine and, in mode ``reinfer``, infer its latent from almost all history."""
        spec, settings = runner.spec, self._settings
        mean, seed = settings.acts_by_mean, self._seed + runner.card.version
        engine = PolicyEngine(runner, seed=seed, mean=mean, estimates=("surprise",))
        engine.act(spec.zeros(), np.zeros(spec.action.size, np.float32), True)
        engine.reset()
        keep = max(2, round(settings.history_s / spec.period_s))
        if self._history.maxlen != keep:
            with self._lock:
                self._history = deque(self._history, maxlen=keep)
        candidate = _Candidate(engine)
        if settings.swap_mode == "reinfer" and self._engine is not None:
            while len(entries := self._history_after(candidate.upto)) > CATCH_UP_STEPS:
                self._replay(candidate, entries)
        return candidate

    def _history_after(self, tick: int) -> list[HistoryEntry]:
        """List the history after ``tick``, from the last start of an episode on."""
        with self._lock:
            entries = [m for m in self._history if m.tick > tick]
        firsts = [i for i, entry in enumerate(entries) if entry.is_first]
        return entries[firsts[-1] :] if firsts else entries

    def _replay(self, candidate: _Candidate, entries: list[HistoryEntry]) -> None:
        for entry in entries:
            # The oldest entry kept has no past: the new latent begins there as in an episode.
            is_first = entry.is_first or candidate.upto < 0
            candidate.engine.act(entry.obs, entry.prev_action, is_first)
            candidate.upto, candidate.steps = entry.tick, candidate.steps + 1

    def _take_away(self, candidate: _Candidate) -> None:
        """Let ``candidate`` wait no longer; a newer one that came in the meantime stays."""
        with self._lock:
            if self._ready is candidate:
                self._ready = None

    def _swap(self, candidate: _Candidate, mode: Literal["start", "reinfer", "border"]) -> None:
        self._engine = candidate.engine
        self._take_away(candidate)
        card = candidate.engine.runner.card
        self.swaps += int(mode != "start")
        line = {
            "time_s": round(time.time(), 3),
            "version": card.version,
            "weights_sha256": card.weights_sha256,
            "learner_updates": card.learner_updates,
            "agent_steps": card.agent_steps,
            "mode": mode,
            "reinferred_steps": candidate.steps,
            "swaps": self.swaps,
            "tick": self._tick,
        }
        self._log_lines.append(json.dumps(line))
        self._on_event(f"policy version {card.version} runs (mode {mode})")

    def _refuse(self, what: str, error: Exception) -> None:
        self.refused += 1
        reason = f"{what} refused: {error}"
        self.refusals = [*self.refusals[-19:], reason]
        self._on_event(reason)

    def _write_log(self) -> None:
        """Append waiting lines to the log; where the disk refuses they wait for the next time."""
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


def _modified_ns(folder: Path) -> int:
    """Read when the manifest of a policy folder last changed; 0 where it has none."""
    try:
        return PolicyFolder(folder).manifest.stat().st_mtime_ns
    except OSError:
        return 0
