"""Keeps the files of a spool: chunks within a bound, and the session's journal.

Only the spool's writer thread uses it; the uploader may remove files at any time.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import NO_ROOM, TMP_SUFFIX, write_durably
from wm_core.format.chunk import ChunkKey, check_chunk, chunk_path
from wm_core.link.robot.journal import Journal, SpoolSession, sessions_in

log = logging.getLogger(__name__)

_MAX_LEFTOVER_BYTES = 64 << 20


class _Kept(NamedTuple):
    """Describes a chunk that was on the disk when last checked."""

    created_ns: int  #: of its session; sorts oldest first
    key: ChunkKey
    bytes: int
    steps: int  #: in it; 0 for a chunk of an earlier session


class SpoolDisk:
    """Keeps the chunk files of the robot's sessions within ``max_bytes``.

    Args:
        folder: the spool folder.
        journal: of the new session.
        max_bytes: most bytes of all of the robot's chunks that wait.
        drop_oldest: at the bound, evict the oldest chunk instead of the new one.
        on_drop: called with (reason, steps) for dropped steps of this session.
        on_count: called with (name, n) for everything else that is counted.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        *,
        max_bytes: int,
        drop_oldest: bool,
        on_drop: Callable[[str, int], None],
        on_count: Callable[[str, int], None],
    ) -> None:
        self.journal, self._folder = journal, folder
        self._home = SpoolSession(chunk_path(folder, self._key(0)).parent)
        if self._home.journal() is not None:
            raise ChunkRefused(
                f"session {journal.session} was used before; leave it out to draw a new one"
            )
        self._max_bytes, self._drop_oldest = max_bytes, drop_oldest
        self._on_drop, self._on_count = on_drop, on_count
        self._kept: deque[_Kept] = deque()
        self._lock: int | None = None
        self.bytes = 0  #: of chunks that wait

    def begin(self) -> None:
        """Open the session and list the chunks that earlier ones left."""
        self.save()
        self._lock = self._home.try_lock()
        for session in sessions_in(self._folder):
            if session.robot != self.journal.robot or session.session == self.journal.session:
                continue
            self._recover(session)
            journal = session.journal()
            created_ns = journal.created_ns if journal else 0
            self._kept.extend(
                _Kept(created_ns, chunk.key, chunk.bytes, 0) for chunk in session.waiting()
            )
        self._kept = deque(sorted(self._kept))
        self.bytes = sum(kept.bytes for kept in self._kept)
        self._on_count("chunks_left_over", len(self._kept))

    def write(self, data: bytes, steps: int) -> bool:
        """Make the next chunk durable; returns False where its ``steps`` were dropped."""
        if not self._make_room(len(data)):
            self._on_drop("spool_full", steps)
            return False
        key = self._key(self.journal.next_seq)
        try:
            self._write(chunk_path(self._folder, key), data)
        except OSError as error:
            log.error("chunk %s could not be written: %s", key, error)
            self._on_drop("disk_full" if error.errno in NO_ROOM else "write_error", steps)
            return False
        self._kept.append(_Kept(self.journal.created_ns, key, len(data), steps))
        self.bytes += len(data)
        self.journal = self.journal.model_copy(update={"next_seq": key.seq + 1})
        self._on_count("chunks_sealed", 1)
        self._on_count("steps_sealed", steps)
        return True

    def save(self, **changes: object) -> None:
        """Write the journal with ``changes``; on a full disk the last one stays."""
        self.journal = self.journal.model_copy(update=changes)
        self._try_save(self._home, self.journal)

    def forget_acknowledged(self) -> None:
        """Forget chunks whose files the uploader has removed."""
        while self._kept and not chunk_path(self._folder, self._kept[0].key).exists():
            self.bytes -= self._kept.popleft().bytes

    def end(self) -> None:
        """Close the session's journal and release its lock."""
        self.save(closed=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _key(self, seq: int) -> ChunkKey:
        return ChunkKey(self.journal.robot, self.journal.session, seq)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_durably(path, data)
        except OSError as error:
            if error.errno not in NO_ROOM or not self._drop_oldest:
                raise
            freed = 0
            while self._kept and freed < len(data):
                freed += self._evict_oldest("disk_full")
            if not freed:
                raise
            write_durably(path, data)

    def _make_room(self, size: int) -> bool:
        """Evict chunks until ``size`` more bytes fit the bound; returns whether they do."""
        self.forget_acknowledged()
        while self._drop_oldest and self._kept and self.bytes + size > self._max_bytes:
            self._evict_oldest("spool_full")
        return self.bytes + size <= self._max_bytes

    def _evict_oldest(self, reason: str) -> int:
        """Remove the oldest chunk and note its number; returns the bytes that it held."""
        kept = self._kept.popleft()
        self.bytes -= kept.bytes
        try:
            chunk_path(self._folder, kept.key).unlink()
        except FileNotFoundError:  # acknowledged meanwhile
            return kept.bytes
        self._on_count("chunks_dropped", 1)
        if kept.key.session == self.journal.session:
            self._on_drop(reason, kept.steps)
            self.journal = self.journal.with_dropped(reason, kept.key.seq)
        else:
            session = SpoolSession(chunk_path(self._folder, kept.key).parent)
            journal = session.journal()
            if journal is not None:
                self._try_save(session, journal.with_dropped(reason, kept.key.seq))
        return kept.bytes

    def _try_save(self, session: SpoolSession, journal: Journal) -> None:
        try:
            session.write_journal(journal)
        except OSError as error:
            log.error("journal of session %s could not be written: %s", session.session, error)
            self._on_count("journal_faults", 1)

    def _recover(self, session: SpoolSession) -> None:
        """Finish or remove files that a killed process left half written."""
        unfinished = list(session.path.glob(f"*.mcap.*{TMP_SUFFIX}"))
        handle = session.try_lock() if unfinished else None
        if handle is None:  # nothing to do, or that process still runs
            return
        for path in unfinished:
            key = ChunkKey(session.robot, session.session, int(path.name.split(".")[0]))
            try:
                check_chunk(path.read_bytes(), key, max_bytes=_MAX_LEFTOVER_BYTES)
                path.rename(chunk_path(self._folder, key))
                self._on_count("tmp_recovered", 1)
            except (ChunkRefused, OSError):
                path.unlink(missing_ok=True)
                self._on_count("tmp_removed", 1)
        os.close(handle)
