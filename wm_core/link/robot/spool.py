"""Spools the robot's steps: they enter a bounded queue, and a thread makes durable chunks.

``put`` never blocks and never raises.  A step that does not reach the disk is counted by reason,
and the counts travel in the next chunk's ``dropped``; a gap in the steps ends a chunk, so the
steps of one chunk always follow each other.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.frozen import Frozen, ranged
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step, check_step, is_usable
from wm_core.format.chunk import ChunkMeta, encode_chunk
from wm_core.link.robot.journal import Journal
from wm_core.link.robot.spool_disk import SpoolDisk

log = logging.getLogger(__name__)

_POLL_S = 0.1  # how often the writer runs; a chunk may be sealed so much later
_PRESSED, _CALM = 0.8, 0.5  # shares of max_bytes at which exploration pauses, and goes on
_COUNTED = ("steps_put", "steps_invalid", "steps_sealed", "chunks_sealed", "chunks_dropped")


class SpoolSettings(Frozen):
    """Says when a chunk is sealed and how much may wait."""

    seal_steps: int = ranged(64, 1, 4096, "Steps after which a chunk of experience is sealed")
    seal_s: float = ranged(2.0, 0.001, 3600, "Seconds after which a chunk of experience is sealed")
    seal_bytes: int = ranged(
        1_000_000, 1, 2**40, "Bytes, before compression, after which a chunk is sealed"
    )
    max_bytes: int = ranged(
        2_000_000_000, 1, 2**62, "Most bytes on the disk that wait for the trainer"
    )
    queue_steps: int = ranged(2048, 1, 2**31, "Most steps in memory that wait for the disk")
    overflow: Literal["drop_newest", "drop_oldest", "pause_exploration"] = Field(
        "drop_oldest",
        description="What gives way where the spool or its queue is full; pause_exploration: the "
        "policy acts by its mean from four fifths on, and beyond the bound the newest goes",
    )


class Spool:
    """Writes one session's steps to the disk.

    Args:
        folder: the spool folder; other sessions and robots may share it.
        robot: this robot's name, 1 to 64 of a-z, 0-9, _ and -.
        task: what the robot is doing.
        spec: which every step must fit.
        settings: bounds.
        session: 32 hexadecimal digits that were never used before; None draws them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        robot: str,
        task: str,
        spec: Spec,
        settings: SpoolSettings | None = None,
        session: str | None = None,
    ) -> None:
        self.session = session or uuid.uuid4().hex
        self.folder, self.settings = Path(folder), settings or SpoolSettings()
        self._template = ChunkMeta(
            robot=robot, session=self.session, seq=0, task=task, spec=spec, first_step=0, steps=1
        )
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._queue: deque[tuple[int, Step]] = deque()
        self._next_step = 0
        self._flushes_wanted = self._flushes_done = 0
        self._closing = self._pressed = False
        self._counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self._dropped: Counter[str] = Counter()
        self._open: list[Step] = []  # this one and the next are the writer's own
        self._open_first, self._open_bytes, self._opened_s = 0, 0, 0.0
        self._disk = SpoolDisk(
            self.folder,
            Journal(robot=robot, session=self.session, task=task, created_ns=time.time_ns()),
            max_bytes=self.settings.max_bytes,
            drop_oldest=self.settings.overflow == "drop_oldest",
            on_drop=self._drop,
            on_count=self._count,
        )
        self._thread = threading.Thread(target=self._run, name=f"spool-{robot}", daemon=True)
        self._thread.start()

    def put(self, step: Step) -> bool:
        """Queue one step, whose arrays the caller must not change any more.

        Returns False where it was dropped and counted.  A step that must not be learnt from
        (``contract.step.usable``) is marked invalid.
        """
        misfit = self._misfit(step)
        if not misfit and step.is_valid and not is_usable(step, self._template.spec):
            step = replace(step, is_valid=False)
        with self._lock:
            index, self._next_step = self._next_step, self._next_step + 1
            self._counts["steps_put"] += 1
            reason = misfit or ("closed" if self._closing else "")
            if not reason and len(self._queue) >= self.settings.queue_steps:
                if self.settings.overflow != "drop_oldest":
                    reason = "queue_full"
                else:
                    self._queue.popleft()
                    self._dropped["queue_full"] += 1
            if reason:
                self._dropped[reason] += 1
                return False
            self._counts["steps_invalid"] += not step.is_valid
            self._queue.append((index, step))
        return True

    def counters(self) -> dict[str, int]:
        """Count steps and chunks so far, dropped steps by reason, and what waits."""
        with self._lock:
            dropped = {f"dropped_{reason}": n for reason, n in self._dropped.items()}
            waits = {"queue_steps": len(self._queue), "bytes_on_disk": self._disk.bytes}
            return {**self._counts, **dropped, **waits}

    def pressure(self) -> Literal["ok", "pause"]:
        """Say whether exploration should pause, so that less comes that the trainer lacks.

        "pause" from four fifths of ``max_bytes`` on until half is free again, and only where
        ``overflow`` is ``pause_exploration``.
        """
        if self.settings.overflow != "pause_exploration":
            return "ok"
        share = self._disk.bytes / self.settings.max_bytes
        self._pressed = share >= (_CALM if self._pressed else _PRESSED)
        return "pause" if self._pressed else "ok"

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Seal every step put until now; returns whether that happened in time."""
        with self._changed:
            self._flushes_wanted += 1
            ticket = self._flushes_wanted
            self._wake.set()
            return self._changed.wait_for(lambda: self._flushes_done >= ticket, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Seal what is open and end the thread; a second call does nothing."""
        with self._lock:
            self._closing = True
        self._wake.set()
        self._thread.join(timeout_s)

    def _misfit(self, step: Step) -> str:
        """Say why ``step`` cannot be recorded; empty where it can."""
        try:
            check_step(step, self._template.spec)
        except SpecMismatch as error:
            if not self._dropped["spec_mismatch"]:  # logged once, counted always
                log.warning("steps are dropped: %s", error)
            return "spec_mismatch"
        return ""

    def _drop(self, reason: str, steps: int) -> None:
        with self._lock:
            self._dropped[reason] += steps

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._counts[name] += n

    # ------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        self._try(self._disk.begin)
        while True:
            self._wake.wait(_POLL_S)
            self._wake.clear()
            with self._lock:
                closing, ticket = self._closing, self._flushes_wanted
                taken = list(self._queue)
                self._queue.clear()
            for index, step in taken:
                self._append(index, step)
            aged = time.monotonic() - self._opened_s >= self.settings.seal_s
            if aged or closing or ticket > self._flushes_done:
                self._seal()
            self._try(self._disk.forget_acknowledged)
            if closing:
                self._try(self._end)
            with self._changed:
                self._flushes_done = ticket
                self._changed.notify_all()
            if closing:
                return

    def _append(self, index: int, step: Step) -> None:
        if index != self._open_first + len(self._open):
            self._seal()
        if not self._open:
            self._open_first, self._open_bytes, self._opened_s = index, 0, time.monotonic()
        self._open.append(step)
        self._open_bytes += sum(array.nbytes for array in step.obs.values())
        full = self._open_bytes >= self.settings.seal_bytes
        if full or len(self._open) >= self.settings.seal_steps:
            self._seal()

    def _seal(self) -> None:
        if self._open:
            steps, self._open = self._open, []
            if not self._try(lambda: self._write(steps)):
                self._drop("writer_fault", len(steps))

    def _write(self, steps: list[Step]) -> None:
        seq, first = self._disk.journal.next_seq, self._open_first
        update = {"seq": seq, "first_step": first, "steps": len(steps), "dropped": self._drops()}
        data = encode_chunk(steps, self._template.model_copy(update=update))
        self._disk.write(data, len(steps))
        self._disk.save(next_step=first + len(steps), dropped_steps=self._drops())

    def _drops(self) -> dict[str, int]:
        with self._lock:
            return dict(self._dropped)

    def _end(self) -> None:
        with self._lock:
            next_step, dropped = self._next_step, dict(self._dropped)
        self._disk.save(next_step=next_step, dropped_steps=dropped)
        self._disk.end()

    def _try(self, work: Callable[[], None]) -> bool:
        """Do ``work`` and return whether it succeeded; a fault never ends the thread."""
        try:
            work()
        except Exception:
            log.exception("the spool's writer goes on after a fault")
            self._count("writer_faults", 1)
            return False
        return True
