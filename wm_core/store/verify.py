"""Re-hashes what is stored: files rot, and an acknowledged chunk has no other copy.

``verify`` looks at everything once; ``Scrub`` does the same beside a service, slowly and for ever.
What is damaged is noted in the ledger, so that counters and alarms say it, and is replaced when
its bytes come again, from a robot's black box for instance.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.errors import ChunkRefused, StoreError
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.store.examine import read_stored
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger

log = logging.getLogger(__name__)

_ROWS = 256  # that are asked of the ledger at once
_PASS_S = 3600.0  # between two passes of a scrub


@dataclass
class Verified:
    """Says what a pass over the store found."""

    chunks: int = 0  #: that were read
    bytes: int = 0
    damaged: list[tuple[ChunkKey, str]] = field(default_factory=list)  #: with the reason
    unnoted: int = 0  #: chunks of which the ledger said something else


def verify(
    root: Path, ledger: Ledger, *, on_chunk: Callable[[ChunkRow], object] = lambda row: None
) -> Verified:
    """Read and hash every chunk that should be there; note in the ledger what is damaged.

    Args:
        root: the store's folder.
        ledger: of that store; one that was opened to be read gets no notes.
        on_chunk: called before each chunk.
    """
    found, arrival = Verified(), ledger.pruned_through()
    marked = ledger.damaged()
    while rows := ledger.since(arrival, limit=_ROWS):
        for row in rows:
            on_chunk(row)
            reason = verify_chunk(root, ledger, row, marked.get(row.arrival))
            found.chunks += 1
            found.bytes += row.bytes
            found.unnoted += reason != marked.get(row.arrival)
            if reason is not None:
                found.damaged.append((row.key, reason))
        arrival = rows[-1].arrival
    return found


def verify_store(
    root: Path, *, on_chunk: Callable[[ChunkRow], object] = lambda row: None
) -> Verified:
    """Verify the store at ``root``, which is written to only where there is something to note.

    Raises:
        StoreError: where the ledger is damaged, or what was found cannot be noted.
    """
    ledger = Ledger(root / LEDGER_NAME, read_only=True)
    try:
        ledger.check()
        found = verify(root, ledger, on_chunk=on_chunk)
        marked = ledger.damaged()
    finally:
        ledger.close()
    if found.unnoted:
        ledger, reasons = Ledger(root / LEDGER_NAME), dict(found.damaged)
        try:
            for row in ledger.since(ledger.pruned_through()):
                if row.key in reasons or row.arrival in marked:
                    verify_chunk(root, ledger, row, marked.get(row.arrival))
        finally:
            ledger.close()
    return found


def verify_chunk(root: Path, ledger: Ledger, row: ChunkRow, marked: str | None) -> str | None:
    """Hash one chunk and bring the ledger's note on it up to date; the reason where damaged.

    Args:
        root: the store's folder.
        ledger: of that store.
        row: of the chunk.
        marked: what the ledger says of it; None where nothing.
    """
    reason = read_chunk(root, row).reason or None
    if reason is not None and row.arrival <= ledger.pruned_through():
        return None  # evicted meanwhile
    if ledger.read_only:
        return reason
    if reason is None and marked is not None:
        ledger.mark_sound(row.arrival)
    elif reason is not None and reason != marked:
        log.error("chunk %s is damaged: %s", tuple(row.key), reason)
        ledger.mark_damaged(row.arrival, reason)
    return reason


class ReadChunk(NamedTuple):
    """Holds the bytes of an acknowledged chunk, or what is wrong with its file."""

    data: bytes | None  #: those that were acknowledged; None where the file is damaged
    fault: str = ""  #: missing, torn (of another size), wrong_hash or unreadable
    reason: str = ""  #: for people


def read_chunk(root: Path, row: ChunkRow) -> ReadChunk:
    """Read and hash the file of one chunk; whatever lies in its place is said, never raised.

    Args:
        root: the store's folder.
        row: of the chunk.
    """
    path = chunk_path(root, row.key)
    try:
        data = read_stored(path, row)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:  # what was read once need not push other files out of memory
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    except FileNotFoundError:
        return ReadChunk(None, "missing", "its file is gone")
    except OSError as error:
        return ReadChunk(None, "unreadable", f"its file cannot be read: {error.strerror}")
    except ChunkRefused as error:
        return ReadChunk(None, "wrong_hash" if _has_size(path, row) else "torn", str(error))
    return ReadChunk(data)


def _has_size(path: Path, row: ChunkRow) -> bool:
    try:
        return path.lstat().st_size == row.bytes
    except OSError:
        return False


class Scrub:
    """Verifies a store again and again in a thread, at a bounded rate.

    Args:
        root: the store's folder.
        ledger: of that store.
        bytes_per_s: most bytes that are read in a second.
    """

    def __init__(self, root: Path, ledger: Ledger, *, bytes_per_s: float) -> None:
        self.passes = 0  #: over the whole store so far
        self._root, self._ledger, self._bytes_per_s = root, ledger, bytes_per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scrub", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; a second call does nothing."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                verify(self._root, self._ledger, on_chunk=self._pause)
                self.passes += 1
            except _Stopped:
                return
            except (StoreError, sqlite3.Error, OSError) as error:
                log.error("the store could not be verified: %s", error)
            self._stop.wait(_PASS_S)

    def _pause(self, row: ChunkRow) -> None:
        if self._stop.wait(row.bytes / self._bytes_per_s):
            raise _Stopped


class _Stopped(Exception):
    """Ends a pass."""
