"""Commits a group of chunks: files and folders are synced side by side, then one transaction.

Everything happens inside one exclusive transaction of the ledger, so a file without a row is
always the trace of a killed writer.  A file has its final name before it is synced: all files and
folders of the group then wait for the same commit of the file system.  A power cut can leave a
torn file under a chunk's name, but never with a row, and so never acknowledged.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from wm_core.contract.files import NO_ROOM, TMP_SUFFIX, make_folder, sync_folder
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.store.examine import Examined, is_settled
from wm_core.store.ledger import Ledger
from wm_core.store.quarantine import quarantine
from wm_core.store.verdict import Verdict

log = logging.getLogger(__name__)

REPLACED = "its damaged file was replaced by these bytes"


@dataclass
class _Write:
    """Follows one file of a group on its way to the disk."""

    chunk: Examined
    path: Path
    arrival: int  #: of its row
    is_new: bool  #: False where a damaged file is replaced
    handle: int = -1
    error: OSError | None = None
    same: list[int] = field(default_factory=list)  #: places in the group of these very bytes

    def fail(self, error: OSError) -> None:
        self.error = self.error or error


def commit_group(
    root: Path,
    ledger: Ledger,
    group: Sequence[Examined],
    *,
    min_free_bytes: int = 0,
    pool: Executor | None = None,
) -> list[Verdict]:
    """Store the examined chunks of ``group`` that have no verdict yet; quarantine the refused.

    Args:
        root: the store's folder; a file becomes ``root/robot/session/seq.mcap``.
        ledger: of that store.
        group: chunks as ``examine_chunk`` gave them; one that fails harms no other.
        min_free_bytes: leave at least this much room on the disk.
        pool: syncs files side by side; None syncs one after the other.

    Returns:
        One verdict per chunk: ``stored`` or ``known`` once file, folder and row are durable.
    """
    work = _Group(root, ledger, group, min_free_bytes, pool)
    work.commit()
    return work.verdicts()


class _Group:
    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        group: Sequence[Examined],
        min_free_bytes: int,
        pool: Executor | None,
    ) -> None:
        self._root, self._ledger, self._group, self._pool = root, ledger, group, pool
        self._min_free_bytes = min_free_bytes
        self._found: list[Verdict | None] = [chunk.verdict for chunk in group]
        self._refused = [i for i, chunk in enumerate(group) if chunk.keep]
        self._writes: dict[ChunkKey, _Write] = {}
        self._room = 0

    def verdicts(self) -> list[Verdict]:
        return [verdict or Verdict("busy", "the store ended too early") for verdict in self._found]

    def commit(self) -> None:
        """Decide, write, sync and enter; then keep what was refused."""
        waiting = [i for i, verdict in enumerate(self._found) if verdict is None]
        if waiting:
            try:
                self._store(waiting)
            except OSError as error:
                self._give_up(waiting, _refused_by(self._root, error))
            except sqlite3.OperationalError as error:
                full = any(words in str(error) for words in ("full", "disk I/O error"))
                busy = Verdict("busy", f"the ledger could not be written: {error}")
                self._give_up(waiting, _no_room(self._root, error) if full else busy)
        kept = [(self._group[i], verdict) for i in self._refused if (verdict := self._found[i])]
        quarantine(self._root, self._ledger, kept, min_free_bytes=self._min_free_bytes)

    def _give_up(self, waiting: list[int], verdict: Verdict) -> None:
        for i in waiting:
            self._found[i] = verdict
        self._refused = [i for i in self._refused if self._group[i].keep]

    def _store(self, waiting: list[int]) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        self._room = shutil.disk_usage(self._root).free - self._min_free_bytes
        with self._ledger.writing():
            for i in waiting:
                self._found[i] = self._decide(i)
            try:
                for write in self._writes.values():
                    self._write(write)
                self._sync()
                self._settle()
            except BaseException:
                self._take_back(list(self._writes.values()))
                raise
            finally:
                for write in self._writes.values():
                    if write.handle >= 0:
                        os.close(write.handle)

    def _decide(self, i: int) -> Verdict | None:
        """Say what is known without writing; None once the chunk waits to be written."""
        chunk, ledger = self._group[i], self._ledger
        assert chunk.columns is not None
        meta, key = chunk.columns.meta, chunk.key
        row = ledger.find(key)  # again, now that no one else can write
        if row is not None and row.sha256 != chunk.sha256:
            self._refused.append(i)
            return Verdict(
                "conflict",
                f"chunk {key.seq} is stored with sha256 {row.sha256}; this one has {chunk.sha256}",
            )
        if key in self._writes:  # these very bytes, twice in one group
            self._writes[key].same.append(i)
            return None
        if row is not None and is_settled(self._root, ledger, row):
            return Verdict("known")
        if row is None:
            rival = ledger.overlapping(key, meta.first_step, meta.steps)
            if rival is not None:
                self._refused.append(i)
                return Verdict("conflict", rival)
        self._room -= len(chunk.data)
        if self._room < 0:
            free = self._room + self._min_free_bytes + len(chunk.data)
            why = f"{free} bytes are free and {self._min_free_bytes} must stay so"
            self._room += len(chunk.data)
            return _no_room(self._root, why)
        arrival = row.arrival if row else ledger.add(key, chunk.sha256, len(chunk.data), meta)
        path = chunk_path(self._root, key)
        self._writes[key] = _Write(chunk, path, arrival, row is None, same=[i])
        return None

    def _write(self, write: _Write) -> None:
        """Put the file under its name; its bytes need not be on the disk yet."""
        path = write.path
        unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}{TMP_SUFFIX}")
        try:
            make_folder(path.parent)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            write.handle = os.open(unfinished, flags, 0o644)
            left = memoryview(write.chunk.data)
            while left:
                left = left[os.write(write.handle, left) :]
            os.replace(unfinished, path)
        except OSError as error:
            write.fail(error)
            with contextlib.suppress(OSError):
                unfinished.unlink()

    def _sync(self) -> None:
        """Sync every file of the group and every folder, side by side."""
        folders: dict[Path, list[_Write]] = {}
        for write in self._writes.values():
            if write.error is None:
                folders.setdefault(write.path.parent, []).append(write)
        if self._pool is None:
            for writes in folders.values():
                for write in writes:
                    _sync_file(write)
            for folder, writes in folders.items():
                _sync_names(folder, writes)
            return
        jobs: list[Future[None]] = []
        for writes in folders.values():
            jobs += [self._pool.submit(_sync_file, write) for write in writes]
        jobs += [self._pool.submit(_sync_names, *item) for item in folders.items()]
        for job in jobs:
            job.result()

    def _settle(self) -> None:
        """Give each written chunk its verdict, and take back the rows of those that failed."""
        failed = [write for write in self._writes.values() if write.error is not None]
        self._take_back(failed)
        for write in failed:
            if write.is_new:
                self._ledger.remove(write.arrival)
        for write in self._writes.values():
            if write.error is not None:
                first = then = _refused_by(self._root, write.error)
            else:
                first, then = Verdict("stored"), Verdict("known")
                if not write.is_new:
                    self._ledger.mark_sound(write.arrival)
                    first = Verdict("known", REPLACED)
            for place, i in enumerate(write.same):
                self._found[i] = then if place else first

    def _take_back(self, writes: list[_Write]) -> None:
        """Remove files that will have no row; still inside the transaction, as the only writer."""
        for write in writes:
            if write.is_new:
                with contextlib.suppress(OSError):
                    write.path.unlink()


def _sync_file(write: _Write) -> None:
    try:
        os.fsync(write.handle)
    except OSError as error:
        write.fail(error)


def _sync_names(folder: Path, writes: list[_Write]) -> None:
    try:
        sync_folder(folder)
    except OSError as error:
        for write in writes:
            write.fail(error)


def _refused_by(root: Path, error: OSError) -> Verdict:
    """Say that the disk refused: for want of room, or for another reason that may pass."""
    if error.errno in NO_ROOM:
        return _no_room(root, error)
    log.error("nothing can be written to %s: %s", root, error)
    return Verdict("busy", f"the file could not be written: {error}")


def _no_room(root: Path, why: object) -> Verdict:
    log.error("no room in %s: %s", root, why)
    return Verdict("no_room", f"no room on the trainer's disk: {why}")
