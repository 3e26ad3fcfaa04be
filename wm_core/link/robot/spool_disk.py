"""Keeps the files of a spool: chunks within a bound, and the session's journal.

Only the spool's writer thread uses it; the uploader may remove files at any time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import NO_ROOM, make_folder, write_new
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.link.robot.finished import finish
from wm_core.link.robot.journal import LOCK_NAME, Journal, SpoolSession, robots_in, sessions_in
from wm_core.link.robot.open_log import LOG_NAME, OpenLog
from wm_core.link.robot.recovery import recover
from wm_core.link.robot.reserve import Reserve
from wm_core.link.robot.spool_room import Kept, SpoolRoom, Victim
from wm_core.link.robot.spool_settings import SpoolSettings

log = logging.getLogger(__name__)

_LOCK_ATTEMPTS = 10  # another process may look, for a moment, whether this one has ended
_BATCH = 32  #: sessions that are finished together, with one sync of the disk
EARLIER = "earlier_"  #: in front of the reason for which steps of an earlier session were dropped


class SpoolDisk:
    """Keeps the chunk files of the robot's sessions within ``max_bytes``.

    Args:
        folder: the spool folder.
        journal: of the new session.
        settings: bounds, and what gives way.
        on_drop: called with (reason, steps) for dropped steps; those of earlier sessions have
            ``EARLIER`` in front of the reason.
        on_count: called with (name, n) for everything else that is counted.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        *,
        settings: SpoolSettings,
        on_drop: Callable[[str, int], None],
        on_count: Callable[[str, int], None],
    ) -> None:
        self.journal, self._folder = journal, folder
        self._home = SpoolSession(chunk_path(folder, self._key(0)).parent)
        if self._home.path.is_symlink() or self._is_used():
            raise ChunkRefused(
                f"session {journal.session} was used before; leave it out to draw a new one"
            )
        self._room = SpoolRoom(folder, journal.robot, journal.session, settings)
        self._evicts = settings.evicts
        self._on_drop, self._on_count = on_drop, on_count
        self._lock: int | None = None
        self._recovered: set[str] = set()
        self.log = OpenLog(self._home.path / LOG_NAME, sync_s=settings.sync_s)
        self._reserve = Reserve(self._home.path)
        self.bytes = 0  #: of chunks that wait, for other threads

    def begin(self, meanwhile: Callable[[], None]) -> None:
        """Open the session, and finish what earlier ones left.

        ``meanwhile`` is called now and then: there may be thousands, and steps come all the time.
        """
        self._hold_lock()
        newest_ns = self._finish_earlier(meanwhile)
        created_ns = min(max(self.journal.created_ns, newest_ns + 1), 2**63 - 1)
        self.save(created_ns=created_ns)
        self._room.ended(self.journal.session, created_ns)  # lists it with its own time
        self._room.look()
        self._bury(self._room.make(0)[0], "spool_full")
        self._note_bytes()
        self._on_count("chunks_left_over", len(self._room))

    def write(
        self, data: bytes, steps: int, *, valuable: bool, before: Callable[[], None]
    ) -> bool:
        """Make the next chunk durable.

        Args:
            data: the chunk's file.
            steps: in it.
            valuable: whether one of them is worth more than others.
            before: called once there is room, and before a file appears.

        Returns:
            False where its steps were dropped.
        """
        key, n = self._key(self.journal.next_seq), len(data)
        why = self._room.lack(n)
        victims, reason = self._room.make(n)
        self._bury(victims, why or "spool_full")
        if reason:
            self._on_drop(reason, steps)
            return False
        try:
            before()
            self._write(chunk_path(self._folder, key), data)
        except OSError as error:
            log.error("chunk %s could not be written: %s", key, error)
            reason = "disk_full" if error.errno in NO_ROOM else "write_error"
            # whatever may be left of it on the disk, its number is never given again
            update = {"next_seq": key.seq + 1}
            self.journal = self.journal.with_dropped(reason, key.seq, steps)
            self.journal = self.journal.model_copy(update=update)
            self._on_drop(reason, steps)
            return False
        self._room.add(Kept(self.journal.created_ns, key, n, steps, valuable))
        self._note_bytes()
        self.journal = self.journal.model_copy(update={"next_seq": key.seq + 1})
        self._on_count("chunks_sealed", 1)
        self._on_count("steps_sealed", steps)
        return True

    def save(self, **changes: object) -> None:
        """Write the journal with ``changes``; on a full disk the last one stays."""
        self.journal = self.journal.model_copy(update=changes)
        self._hold_lock()
        self._try_save(self._home, self.journal)

    def forget_acknowledged(self) -> None:
        """Forget chunks whose files the uploader has removed."""
        self._room.forget_acknowledged()
        self._note_bytes()

    def tidy(self, meanwhile: Callable[[], None]) -> None:
        """Finish sessions whose processes have ended; to be called now and then."""
        self._finish_earlier(meanwhile)
        self._room.look()
        self._note_bytes()

    def end(self) -> None:
        """Close the session's journal and release its lock."""
        with contextlib.suppress(OSError):
            self.log.remove()
        self._reserve.release()
        self.save(closed=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _key(self, seq: int) -> ChunkKey:
        return ChunkKey(self.journal.robot, self.journal.session, seq)

    def _is_used(self) -> bool:
        try:
            return bool(set(os.listdir(self._home.path)) - {LOCK_NAME})
        except OSError:  # nothing is there, or nothing can be written there either
            return False

    def _hold_lock(self) -> None:
        """Lock the session, anew where its folder was removed and made again."""
        path = self._home.path / LOCK_NAME
        for _ in range(_LOCK_ATTEMPTS):
            if self._lock is not None:
                with contextlib.suppress(OSError):
                    if os.stat(path).st_ino == os.fstat(self._lock).st_ino:
                        return
                os.close(self._lock)
                self._lock = None
            try:
                make_folder(path.parent)
            except OSError:
                return
            self._lock = self._home.try_lock()
            if self._lock is None:
                time.sleep(0.01)
        self._on_count("lock_faults", 1)

    def _finish_earlier(self, meanwhile: Callable[[], None]) -> int:
        """Recover and remove sessions whose processes have ended; returns the newest time."""
        newest_ns = 0
        for robot in robots_in(self._folder):  # one that was renamed left its sessions, too
            earlier = sessions_in(self._folder, robot)
            for start in range(0, len(earlier), _BATCH):
                with ExitStack() as locks:
                    ended = self._recover_some(earlier[start : start + _BATCH], locks)
                    newest_ns = max([newest_ns, *(journal.created_ns for _, journal in ended)])
                    self._try_finish(ended)
                meanwhile()
        return newest_ns

    def _recover_some(
        self, sessions: list[SpoolSession], locks: ExitStack
    ) -> list[tuple[SpoolSession, Journal]]:
        ended = []
        for session in sessions:
            if session.session == self.journal.session:
                continue
            if session.session in self._recovered and session.waiting():
                continue  # nothing to do before they are sent
            journal = self._recover(session, locks)
            if session.session in self._recovered and journal is not None:
                ended.append((session, journal))
        return ended

    def _recover(self, session: SpoolSession, locks: ExitStack) -> Journal | None:
        """Recover a session, if its process has ended, and keep its lock; gives its journal."""
        journal = session.journal()
        lock = session.try_lock()
        if lock is None:  # that process still runs
            return journal
        locks.callback(os.close, lock)
        created_ns = journal.created_ns if journal else 0
        try:
            journal = recover(session, self._on_count)
            self._recovered.add(session.session)
        except Exception as error:  # one session must not keep the others from theirs
            log.error("session %s is left as it is: %s", session.session, error)
            self._on_count("recovery_faults", 1)
        self._room.ended(session.session, journal.created_ns if journal else created_ns)
        return journal

    def _try_finish(self, ended: list[tuple[SpoolSession, Journal]]) -> None:
        try:
            self._on_count("sessions_finished", finish(ended))
        except OSError as error:
            log.error("finished sessions could not be removed: %s", error)
            self._on_count("recovery_faults", 1)

    def _write(self, path: Path, data: bytes) -> None:
        try:
            self._write_new(path, data)
        except OSError as error:
            if error.errno not in NO_ROOM or not self._evicts:
                raise
            victims = self._room.free(len(data))
            if not victims:
                raise
            self._bury(victims, "disk_full")
            self._write_new(path, data)

    def _write_new(self, path: Path, data: bytes) -> None:
        try:
            taken = write_new(path, data)
        except OSError:
            if path.exists():  # it has its name; only a sync failed
                return
            raise
        if not taken:
            raise FileExistsError(f"another file has the name {path}")

    def _bury(self, victims: list[Victim], reason: str) -> None:
        """Note durably that chunks gave way, then remove them."""
        ordered = sorted(victims, key=lambda victim: victim.key)
        for name, group in groupby(ordered, key=lambda victim: victim.key.session):
            found = list(group)
            self._on_count("chunks_dropped", len(found))
            session, journal = self._home, self._with_lost(name, found, reason)
            if name != self.journal.session:
                session = SpoolSession(found[0].path.parent)
            saved = journal is None or self._try_save(session, journal)
            for victim in found:
                with contextlib.suppress(OSError):
                    victim.path.unlink(missing_ok=True)
            if journal is not None and not saved:  # now there may be room
                self._try_save(session, journal)
        self._note_bytes()

    def _with_lost(self, name: str, victims: list[Victim], reason: str) -> Journal | None:
        """Count chunks of session ``name`` as dropped; gives its journal, where it has one."""
        steps = sum(victim.steps for victim in victims)
        if own := name == self.journal.session:
            journal: Journal | None = self.journal
            self._on_drop(reason, steps)
        else:
            journal = SpoolSession(victims[0].path.parent).journal()
            self._on_drop(EARLIER + reason, steps)
        if journal is None:  # of a newer version
            return None
        for victim in victims:
            journal = journal.with_dropped(reason, victim.key.seq, victim.steps)
        if own:
            self.journal = journal
        return journal

    def _try_save(self, session: SpoolSession, journal: Journal) -> bool:
        """Write a journal, into what is held back where the disk is full."""
        try:
            try:
                session.write_journal(journal)
            except OSError as error:
                if error.errno not in NO_ROOM or not self._reserve.release():
                    raise
                session.write_journal(journal)
            if not journal.closed:
                self._reserve.hold()
        except OSError as error:
            log.error("journal of session %s could not be written: %s", session.session, error)
            self._on_count("journal_faults", 1)
            return False
        return True

    def _note_bytes(self) -> None:
        self.bytes = self._room.bytes
