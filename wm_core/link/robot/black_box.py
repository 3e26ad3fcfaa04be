"""Keeps chunks behind their acknowledgement or refusal, each kind within its bounds.

``<session>/sent/`` is the black box: what the trainer has acknowledged, the newest ``keep_bytes``
and ``keep_s`` of it.  ``<session>/refused/`` holds what the trainer refused for good, each chunk
with its reason beside it.  Both are found again at the next start, whoever filled them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from bisect import insort
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.files import make_folder
from wm_core.link.robot.journal import REFUSED, SENT, Waiting, numbered, sessions_in

log = logging.getLogger(__name__)


class _File(NamedTuple):
    sealed_ns: int  #: when its chunk was sealed, by the robot's clock; sorts oldest first
    path: Path
    bytes: int


class BlackBox:
    """Takes chunks that wait no longer, and forgets the oldest of them at its bounds.

    Only one thread may use it.

    Args:
        spool: the spool folder.
        keep_bytes: most bytes of acknowledged chunks; 0 keeps none.
        keep_s: seconds after sealing for which acknowledged chunks are kept; 0 for no such bound.
        refused_bytes: most bytes of refused chunks.
    """

    def __init__(self, spool: Path, *, keep_bytes: int, keep_s: float, refused_bytes: int) -> None:
        self._sent = _Shelf(spool, SENT, keep_bytes, keep_s)
        self._refused = _Shelf(spool, REFUSED, refused_bytes, 0.0)

    def acknowledged(self, chunk: Waiting) -> bool:
        """Take a chunk that the trainer has; False where its file could not leave the spool."""
        return self._sent.take(chunk)

    def refused(self, chunk: Waiting, reason: str) -> bool:
        """Take a chunk that the trainer refused, with the reason; False as above."""
        note = chunk.path.parent / REFUSED / f"{chunk.path.stem}.txt"
        try:
            if self._refused.max_bytes:
                make_folder(note.parent)
                note.write_text(reason + "\n", encoding="utf-8")
        except OSError as error:
            log.error("why chunk %s was refused could not be noted: %s", chunk.key, error)
        return self._refused.take(chunk)

    def tidy(self) -> None:
        """Remove what has become too old; to be called now and then."""
        self._sent.bound()
        self._refused.bound()

    def counters(self) -> dict[str, int]:
        """Count the bytes that are kept of either kind."""
        return {"kept_bytes": self._sent.bytes, "refused_bytes": self._refused.bytes}


class _Shelf:
    """Is one kind of kept chunks, over all sessions of a spool."""

    def __init__(self, spool: Path, name: str, max_bytes: int, max_s: float) -> None:
        self._spool, self._name = spool, name
        self.max_bytes, self._max_s = max_bytes, max_s
        self._files: deque[_File] | None = None  # found at the first use, by the thread it has
        self.bytes = 0

    def take(self, chunk: Waiting) -> bool:
        files = self._found()
        try:
            if self.max_bytes == 0:
                chunk.path.unlink(missing_ok=True)
                return True
            target = chunk.path.parent / self._name / chunk.path.name
            make_folder(target.parent)
            os.replace(chunk.path, target)
        except FileNotFoundError:  # the spool evicted it at its bound
            return True
        except OSError as error:
            log.error("chunk %s cannot leave the spool: %s", chunk.key, error)
            return False
        # several connections acknowledge in another order than was sealed
        insort(files, _File(int(chunk.sealed_s * 1e9), target, chunk.bytes))
        self.bytes += chunk.bytes
        self.bound()
        return True

    def bound(self) -> None:
        files = self._found()
        too_old_ns = time.time_ns() - int(self._max_s * 1e9) if self._max_s else 0
        while files and (self.bytes > self.max_bytes or files[0].sealed_ns < too_old_ns):
            oldest = files.popleft()
            self.bytes -= oldest.bytes
            _remove(oldest.path)

    def _found(self) -> deque[_File]:
        if self._files is None:
            self._files = deque(sorted(_kept(self._spool, self._name)))
            self.bytes = sum(file.bytes for file in self._files)
        return self._files


def give_way(spool: Path, size: int) -> int:
    """Remove kept chunks, acknowledged ones first and the oldest of each kind first.

    Args:
        spool: the spool folder, whose disk is full.
        size: bytes that are wanted.

    Returns:
        The bytes that were freed.
    """
    freed = 0
    for name in (SENT, REFUSED):
        for file in sorted(_kept(spool, name)):
            if freed >= size:
                return freed
            freed += file.bytes if _remove(file.path) else 0
    return freed


def _kept(spool: Path, name: str) -> Iterator[_File]:
    for session in sessions_in(spool):
        for _, entry in numbered(session.path / name):
            with contextlib.suppress(OSError):  # removed meanwhile
                stat = entry.stat(follow_symlinks=False)
                yield _File(stat.st_mtime_ns, Path(entry.path), stat.st_size)


def _remove(path: Path) -> bool:
    """Remove a chunk and the reason beside it; returns whether it is gone by this."""
    with contextlib.suppress(OSError):
        path.with_suffix(".txt").unlink(missing_ok=True)
        path.unlink()
        return True
    return False
