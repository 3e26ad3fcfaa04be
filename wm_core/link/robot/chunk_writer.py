"""Seals steps into chunks, written ahead meanwhile; only the spool's writer thread uses it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable

from wm_core.contract.errors import ChunkRefused, SpecMismatch
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkMeta, EncodedStep, encode_step, join_steps
from wm_core.format.codec_choice import CodecChoice
from wm_core.link.robot.open_log import most_steps
from wm_core.link.robot.spool_disk import SpoolDisk
from wm_core.link.robot.spool_settings import SpoolSettings
from wm_core.link.robot.step_queue import is_valuable

log = logging.getLogger(__name__)


class ChunkWriter:
    """Holds the chunk that is open, and makes it durable.

    Args:
        disk: takes the chunks.
        template: the meta of each chunk, but for numbers and counts.
        settings: when a chunk is sealed.
        choice: of the cameras' codecs.
        dropped: gives the steps dropped so far, by reason: this session's, and all that a chunk
            should tell of.
        on_drop: called with (reason, steps) for steps that no chunk can hold.
        on_count: called with (name, n) for everything else that is counted.
    """

    def __init__(
        self,
        disk: SpoolDisk,
        template: ChunkMeta,
        settings: SpoolSettings,
        choice: CodecChoice,
        *,
        dropped: Callable[[], tuple[dict[str, int], dict[str, int]]],
        on_drop: Callable[[str, int], None],
        on_count: Callable[[str, int], None],
    ) -> None:
        self._disk, self._settings, self._choice = disk, settings, choice
        self._template = template.with_codecs(choice.codecs)
        self._dropped, self._on_drop, self._on_count = dropped, on_drop, on_count
        self._most_steps = min(settings.seal_steps, most_steps(template))
        self._steps: list[EncodedStep] = []
        self._logged = 0  # of these steps, how many were written ahead
        self._first, self._bytes, self._opened_s = 0, 0, 0.0
        self._valuable = False

    def add(self, number: int, step: Step) -> None:
        """Add the step ``number``; a gap in the numbers, or a full chunk, seals what is open."""
        try:
            if self._choice.look(step):
                self.seal()  # its images were recorded as before
                self._template = self._template.with_codecs(self._choice.codecs)
            spec, codecs = self._template.spec, self._template.codecs
            encoded = encode_step(step, spec, codecs)
        except (ChunkRefused, SpecMismatch, ValueError, TypeError, ArithmeticError) as error:
            log.warning("a step cannot be recorded: %s", error)
            self._on_drop("not_recordable", 1)  # the gap ends the chunk
            return
        if number != self._first + len(self._steps):
            self.seal()
        if not self._steps:
            self._first, self._bytes, self._opened_s = number, 0, time.monotonic()
            self._valuable = False
        self._steps.append(encoded)
        self._valuable |= is_valuable(step)
        self._bytes += sum(array.nbytes for k, array in step.obs.items() if k not in codecs)
        pictures = zip(spec.images, encoded.messages, strict=False)  # the first of the messages
        self._bytes += sum(len(message) for k, message in pictures if k in codecs)
        if self._bytes >= self._settings.seal_bytes or len(self._steps) >= self._most_steps:
            self.seal()

    def write_ahead(self) -> None:
        """Append what is open to the log, and sync that as often as is set."""
        disk_log = self._disk.log
        if not self._settings.sync_s or not self._steps:
            return
        try:
            if not self._logged:
                disk_log.begin(self._meta())
            fresh = self._steps[self._logged :]
            self._logged = len(self._steps)
            if fresh:
                disk_log.append(fresh)
            self._on_count("log_syncs", int(disk_log.sync_if_due()))
            disk_log.faulty = False
        except OSError as error:
            self._log_refused(error)

    def seal_if_old(self) -> None:
        """Seal a chunk that was opened ``seal_s`` ago."""
        if time.monotonic() - self._opened_s >= self._settings.seal_s:
            self.seal()

    def seal(self) -> None:
        """Make a chunk of what is open; its steps are counted as dropped where that fails."""
        if not self._steps:
            return
        steps, self._steps = self._steps, []
        logged, self._logged = self._logged, 0
        try:
            self._write(steps, logged)
        except Exception:
            log.exception("the spool's writer goes on after a fault")
            self._on_count("writer_faults", 1)
            self._on_drop("writer_fault", len(steps))

    def _write(self, steps: list[EncodedStep], logged: int) -> None:
        meta = self._meta(len(steps))
        data = join_steps(steps, meta)

        def before() -> None:
            if logged:
                self._end_log(steps[logged:], meta)

        self._disk.write(data, len(steps), valuable=self._valuable, before=before)
        own, _ = self._dropped()
        self._disk.save(next_step=meta.first_step + meta.steps, dropped_steps=own)
        if logged:
            with contextlib.suppress(OSError):  # its number says that it is sealed
                self._disk.log.clear()

    def _end_log(self, fresh: list[EncodedStep], meta: ChunkMeta) -> None:
        try:
            if fresh:
                self._disk.log.append(fresh)
            self._disk.log.end(meta)
        except OSError as error:  # the chunk itself may still find room
            self._log_refused(error)

    def _log_refused(self, error: OSError) -> None:
        if not self._disk.log.faulty:
            log.error("steps are not written ahead, so a kill would cost a chunk: %s", error)
        self._disk.log.faulty = True
        self._on_count("log_faults", 1)

    def _meta(self, steps: int = 1) -> ChunkMeta:
        _, dropped = self._dropped()
        seq = self._disk.journal.next_seq
        update = {"seq": seq, "first_step": self._first, "steps": steps, "dropped": dropped}
        return self._template.model_copy(update=update)
