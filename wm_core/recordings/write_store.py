"""Writes the episodes of a recording into a store, by the way that robots' chunks take.

The session is named after the fingerprint of the source and chunks are cut by counting alone, so
that the same recording gives the same chunks: importing it again stores nothing again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

from wm_core.contract.errors import ChunkRefused, RecordingError
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step, is_usable
from wm_core.format.chunk import (
    ChunkKey,
    ChunkMeta,
    EncodedStep,
    codecs_of,
    encode_step,
    join_steps,
)
from wm_core.format.codec_choice import CodecChoice
from wm_core.format.pictures import Codec
from wm_core.recordings.source import Source
from wm_core.store.disk import size_text
from wm_core.store.examine import MAX_CHUNK_BYTES
from wm_core.store.intake import MAX_GROUP, StoreIntake
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.verdict import Verdict

CHUNK_STEPS = 64  #: fewer where steps are so large that a chunk would not be taken
MIN_FREE_BYTES = 200_000_000  #: of the disk, which are left free
_WAITING = 2 * MAX_GROUP  # chunks without an answer, and their bytes: bounds of the memory
_WAITING_BYTES = 64 << 20
_MOST_REASONS = 64  # that the meta of a chunk holds


@dataclass
class Written:
    """Counts what was written; chunks are new, or known where they were stored already."""

    episodes: int = 0
    steps: int = 0
    new: int = 0
    known: int = 0


def write_store(
    source: Source,
    root: Path,
    *,
    on_step: Callable[[], object] = lambda: None,
    min_free_bytes: int = MIN_FREE_BYTES,
) -> Written:
    """Write every episode of ``source`` into the store ``root``, each chunk once.

    Args:
        source: what is read.
        root: the store's folder, which is made where it is not there; of a run: RUN/store.
        on_step: called after each step.
        min_free_bytes: leave at least this much room on the disk.

    Raises:
        RecordingError: for a name that no robot can have, a source that cannot be read to its
            end, a disk without room, or a store that holds other bytes under the same name.
            What was stored before stays, and is known when the import is repeated; a recording
            without a step leaves no store.
    """
    with contextlib.ExitStack() as opened:

        def store() -> StoreIntake:
            ledger = Ledger(root / LEDGER_NAME)
            opened.callback(ledger.close)
            intake = StoreIntake(root, ledger, min_free_bytes=min_free_bytes)
            opened.callback(intake.close)
            return intake

        writer = _Writer(source, store, root)
        for episode in source.episodes():
            writer.add_episode(episode, on_step)
        return writer.finish()


def check_name(name: str) -> None:
    """Raise ``RecordingError`` for a name of a robot under which nothing can be stored."""
    try:
        ChunkKey(name, "0" * 32, 0).check()
    except ChunkRefused as error:
        raise RecordingError(f"{error}; --name gives another one") from None


def chunk_steps(spec: Spec) -> int:
    """Count the steps of a chunk: as many as surely fit into what a store takes, at most 64."""
    per_step = sum(sensor.recorded_bytes for sensor in spec.inputs.values())
    return max(1, min(CHUNK_STEPS, MAX_CHUNK_BYTES * 3 // 4 // max(1, per_step)))


class _Writer:
    """Cuts steps into chunks and offers them; one chunk is held back for what was left out."""

    def __init__(self, source: Source, store: Callable[[], StoreIntake], root: Path) -> None:
        check_name(source.name)
        self._source, self._store, self._root = source, store, root
        self._intake: StoreIntake | None = None  # made with the first chunk, and not before
        self._spec, self._most = source.spec, chunk_steps(source.spec)
        self._written = Written()
        self._open: list[EncodedStep] = []
        self._codecs: dict[str, Codec] = {}  # of the open steps
        self._choice = CodecChoice(self._spec, getattr(source, "codecs", None))
        self._seq = self._first_step = 0
        self._waiting: deque[tuple[int, Future[Verdict]]] = deque()
        self._bytes = 0  # of those that wait

    def add_episode(self, episode: Iterable[Step], on_step: Callable[[], object]) -> None:
        last: Step | None = None
        for step in episode:
            self._check_order(last, step)
            self._choice.look(step)
            codecs = {**self._choice.codecs, **codecs_of(step)}
            if len(self._open) >= self._most or (self._open and codecs != self._codecs):
                self._seal(Counter())  # only now, so that the last chunk is known
            self._codecs = codecs
            valid = step.is_valid and is_usable(step, self._spec)
            self._open.append(encode_step(replace(step, is_valid=valid), self._spec, codecs))
            self._written.steps += 1
            last = step
            on_step()
        if last is None:
            return
        if not last.is_last:
            raise RecordingError(f"{self._source.name}: an episode ends without is_last")
        self._written.episodes += 1

    def _check_order(self, last: Step | None, step: Step) -> None:
        if step.is_first != (last is None) or (last is not None and last.is_last):
            raise RecordingError(f"{self._source.name}: an episode has a border within it")
        as_stored = getattr(self._source, "as_stored", False)  # what once was in a store
        if last is not None and step.stamp_ns <= last.stamp_ns and not as_stored:
            raise RecordingError(
                f"{self._source.name}: expected stamps that grow within an episode, got "
                f"{step.stamp_ns} ns after {last.stamp_ns} ns"
            )

    def finish(self) -> Written:
        if self._open:
            self._seal(self._source.left_out)
        while self._waiting:
            self._settle()
        return self._written

    def _seal(self, left_out: Counter[str]) -> None:
        session = self._source.fingerprint[:32]
        meta = ChunkMeta(
            robot=self._source.name,
            session=session,
            seq=self._seq,
            task=self._source.task,
            spec=self._spec,
            first_step=self._first_step,
            steps=len(self._open),
            dropped=dict(left_out.most_common(_MOST_REASONS)),
        ).with_codecs(self._codecs)
        data = join_steps(self._open, meta)
        key = ChunkKey(meta.robot, session, self._seq)
        if self._intake is None:
            self._intake = self._store()
        offer = self._intake.offer(key, data, hashlib.sha256(data).hexdigest())
        self._waiting.append((len(data), offer))
        self._bytes += len(data)
        while len(self._waiting) >= _WAITING or self._bytes > _WAITING_BYTES:
            self._settle()
        self._seq += 1
        self._first_step += len(self._open)
        self._open = []

    def _settle(self) -> None:
        """Wait for the answer to the oldest offer."""
        size, offer = self._waiting.popleft()
        self._bytes -= size
        verdict = offer.result()
        if verdict.kind == "stored":
            self._written.new += 1
        elif verdict.kind == "known":
            self._written.known += 1
        elif verdict.kind == "no_room":
            raise RecordingError(
                f"{self._root}: {verdict.reason}; make room and import again: what is stored by "
                f"now ({size_text(self._stored_bytes())}) is kept"
            )
        else:
            raise RecordingError(f"{self._root}: {verdict.kind}: {verdict.reason}")

    def _stored_bytes(self) -> int:
        return 0 if self._intake is None else self._intake.usage(self._source.name)
