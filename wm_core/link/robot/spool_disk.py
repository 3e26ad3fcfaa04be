"""The durable half of a spool: chunk files within a bound, and the session's journal.

Used by the spool's writer thread alone; the uploader may take files away at any time.
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
    """A chunk that lay on the disk when last seen, and the steps that go with it."""

    created_ns: int  #: of its session; sorts oldest first
    key: ChunkKey
    bytes: int
    steps: int  #: 0 for one of an earlier session


class SpoolDisk:
    """Chunk files of one session, and of the robot's earlier ones, within ``max_bytes``.

    Args:
        folder: the spool folder.
        journal: of the new session.
        max_bytes: bound over all of the robot's chunks that wait.
        drop_oldest: at the bound, give up the oldest chunk; else the new one.
        on_drop: told (reason, steps) of this session's steps that were given up.
        on_count: told (name, n) of everything else that is worth a number.
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
        """Open the session and take stock of what earlier ones left."""
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
        """Make the next chunk durable; False: its ``steps`` were given up, with the reason."""
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
        """Write the journal with ``changes``; a full disk leaves the last one standing."""
        self.journal = self.journal.model_copy(update=changes)
        self._try_save(self._home, self.journal)

    def forget_acknowledged(self) -> None:
        """Take files that the uploader has removed off the account."""
        while self._kept and not chunk_path(self._folder, self._kept[0].key).exists():
            self.bytes -= self._kept.popleft().bytes

    def end(self) -> None:
        """Close the session's journal and let go of its lock."""
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
                freed += self._give_up_oldest("disk_full")
            if not freed:
                raise
            write_durably(path, data)

    def _make_room(self, size: int) -> bool:
        """Bring the spool to where ``size`` more bytes fit its bound; whether they do."""
        self.forget_acknowledged()
        while self._drop_oldest and self._kept and self.bytes + size > self._max_bytes:
            self._give_up_oldest("spool_full")
        return self.bytes + size <= self._max_bytes

    def _give_up_oldest(self, reason: str) -> int:
        """Remove the oldest chunk and note its number; the bytes that it held."""
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
        """Finish or remove what a killed process left half written."""
        unfinished = list(session.path.glob(f"*.mcap.*{TMP_SUFFIX}"))
        handle = session.try_lock() if unfinished else None
        if handle is None:  # nothing to do, or that process lives
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
