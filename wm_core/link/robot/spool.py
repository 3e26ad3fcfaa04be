"""Spools the robot's steps: they enter a bounded queue, and a thread makes durable chunks.

``put`` never blocks and never raises.  A step that does not reach the disk is counted by reason,
and the counts travel in the next chunk's ``dropped``; a gap in the steps ends a chunk, so the
steps of one chunk always follow each other.  What is not sealed yet is written ahead, so that a
kill costs the queue and a power cut ``sync_s``.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import CodecRule
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step, check_step, is_usable
from wm_core.format.chunk import ChunkMeta
from wm_core.format.codec_choice import CodecChoice
from wm_core.link.robot.chunk_writer import ChunkWriter
from wm_core.link.robot.journal import Journal
from wm_core.link.robot.spool_disk import EARLIER, SpoolDisk
from wm_core.link.robot.spool_settings import SpoolSettings as SpoolSettings
from wm_core.link.robot.step_queue import StepQueue

log = logging.getLogger(__name__)

_POLL_S = 0.1  # how often the writer runs; a chunk may be sealed so much later
_TIDY_S = 60.0  # how often sessions that have ended are looked at
_PRESSED, _CALM = 0.8, 0.5  # shares of a bound at which exploration pauses, and goes on
_COUNTED = (
    "steps_put",
    "steps_invalid",
    "steps_sealed",
    "steps_recovered",
    "chunks_sealed",
    "chunks_dropped",
    "journal_faults",
    "log_faults",
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
        codecs: how some cameras' images are recorded; the others' as ``settings.codec`` says.

    Raises:
        SpecMismatch: for a camera that cannot be recorded so.
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
        codecs: Mapping[str, CodecRule] | None = None,
    ) -> None:
        self.session = session or uuid.uuid4().hex
        self.folder, self.settings = Path(folder), settings or SpoolSettings()
        self._template = ChunkMeta(
            robot=robot, session=self.session, seq=0, task=task, spec=spec, first_step=0, steps=1
        )
        self._choice = CodecChoice(spec, codecs, default=self.settings.codec)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._queue = StepQueue(
            self.settings.queue_steps, self.settings.queue_bytes, self.settings.overflow
        )
        self._next_step = 0
        self._flushes_wanted = self._flushes_done = 0
        self._closing = self._pressed = False
        self._counts: Counter[str] = Counter(dict.fromkeys(_COUNTED, 0))
        self._dropped: Counter[str] = Counter()
        self._disk = SpoolDisk(
            self.folder,
            Journal(robot=robot, session=self.session, task=task, created_ns=time.time_ns()),
            settings=self.settings,
            on_drop=self._drop,
            on_count=self._count,
        )
        self._writer = ChunkWriter(
            self._disk,
            self._template,
            self.settings,
            self._choice,
            dropped=self._drops,
            on_drop=self._drop,
            on_count=self._count,
        )
        self._tidied_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"spool-{robot}", daemon=True)
        self._thread.start()

    def put(self, step: Step) -> bool:
        """Queue one step, whose arrays the caller must not change any more.

        Returns False where it was dropped and counted.  A step that must not be learnt from
        (``contract.step.usable``) is marked invalid.
        """
        step, misfit = self._examined(step)
        with self._lock:
            index, self._next_step = self._next_step, self._next_step + 1
            self._counts["steps_put"] += 1
            reason = misfit or ("closed" if self._closing else "")
            if not reason:
                taken, gave_way = self._queue.put(index, step)
                self._dropped["queue_full"] += gave_way
                reason = "" if taken else "queue_full"
            if reason:
                self._dropped[reason] += 1
                return False
            self._counts["steps_invalid"] += not step.is_valid
        return True

    def counters(self) -> dict[str, int]:
        """Count steps and chunks so far, dropped steps by reason, and what waits."""
        with self._lock:
            counts = dict(self._counts)
            dropped = {f"dropped_{reason}": n for reason, n in self._dropped.items() if n}
        waits = {"queue_steps": len(self._queue), "bytes_on_disk": self._disk.bytes}
        ahead = {"log_bytes_written": self._disk.log.bytes_written}
        lossy = {"jpeg_cameras": len(self._choice.codecs)}
        return {**counts, **dropped, **waits, **ahead, **lossy}

    def pressure(self) -> Literal["ok", "pause"]:
        """Say whether exploration should pause, so that less comes that the trainer lacks.

        "pause" from four fifths of ``max_bytes``, or of the queue, on until half is free again,
        and only where ``overflow`` is ``pause_exploration``.
        """
        if self.settings.overflow != "pause_exploration":
            return "ok"
        share = max(self._disk.bytes / self.settings.max_bytes, self._queue.share)
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

    def _examined(self, step: Step) -> tuple[Step, str]:
        """Mark a step that must not be learnt from, or say why it cannot be recorded at all."""
        try:
            check_step(step, self._template.spec)
            if step.is_valid and not is_usable(step, self._template.spec):
                step = replace(step, is_valid=False)
        except SpecMismatch as error:
            return step, self._refuse("spec_mismatch", error)
        except Exception as error:  # whatever a caller makes of a step, it costs that step alone
            return step, self._refuse("not_recordable", error)
        return step, ""

    def _refuse(self, reason: str, error: Exception) -> str:
        if not self._dropped[reason]:  # logged once, counted always
            log.warning("steps are dropped: %s: %s", type(error).__name__, error)
        return reason

    def _drop(self, reason: str, steps: int) -> None:
        with self._lock:
            self._dropped[reason] += steps

    def _count(self, name: str, n: int) -> None:
        with self._lock:
            self._counts[name] += n

    # ------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        self._try(lambda: self._disk.begin(self._try_record))
        while True:
            self._wake.wait(_POLL_S)
            self._wake.clear()
            with self._lock:
                closing, ticket = self._closing, self._flushes_wanted
            self._try_record()
            if closing or ticket > self._flushes_done:
                self._try(self._writer.seal)
            self._try(self._look_after)
            if closing:
                self._try(self._end)
            with self._changed:
                self._flushes_done = ticket
                self._changed.notify_all()
            if closing:
                return

    def _try_record(self) -> None:
        self._try(self._record_queue)

    def _record_queue(self) -> None:
        with self._lock:
            taken = self._queue.take()
        for number, step in taken:
            self._writer.add(number, step)
        self._writer.seal_if_old()
        self._writer.write_ahead()

    def _look_after(self) -> None:
        self._disk.forget_acknowledged()
        if time.monotonic() - self._tidied_s >= _TIDY_S:
            self._tidied_s = time.monotonic()
            self._disk.tidy(self._try_record)

    def _drops(self) -> tuple[dict[str, int], dict[str, int]]:
        """Give the dropped steps of this session, and those with what earlier ones lost."""
        with self._lock:
            told = {reason: n for reason, n in self._dropped.items() if n}
        own = {reason: n for reason, n in told.items() if not reason.startswith(EARLIER)}
        return own, told

    def _end(self) -> None:
        with self._lock:
            next_step = self._next_step
        dropped, _ = self._drops()
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
