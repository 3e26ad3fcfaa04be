"""Reads and writes a spool folder: sessions, their sealed chunks, and what became of each number.

``<spool>/<robot>/<session>/<seq:08d>.mcap`` waits for its acknowledgement; ``session.json`` says
durably how many chunks were sealed and which of them were dropped, so that losses are computed
from sequence numbers and never from counters.  ``refused/`` and ``sent/`` lie beside.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import try_lock, write_durably
from wm_core.contract.spec import Frozen
from wm_core.format.chunk import ChunkKey

JOURNAL_NAME = "session.json"
LOCK_NAME = "lock"
REFUSED = "refused"
SENT = "sent"


class Journal(Frozen):
    """Is a session's record of itself; chunks 0 .. ``next_seq`` - 1 were sealed."""

    version: Literal[1] = 1
    robot: str
    session: str
    task: str = ""
    created_ns: int = 0
    next_seq: int = 0
    next_step: int = 0  #: steps that were put, dropped ones included
    dropped_chunks: dict[str, list[tuple[int, int]]] = Field(default_factory=dict)
    #: reason -> inclusive ranges of sequence numbers that were sealed and evicted
    dropped_steps: dict[str, int] = Field(default_factory=dict)  #: by reason
    closed: bool = False  #: closed normally; else the process was killed, or still runs

    def with_dropped(self, reason: str, seq: int) -> Journal:
        """Note that chunk ``seq`` was evicted for ``reason``; returns the new journal."""
        ranges = list(self.dropped_chunks.get(reason, []))
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
        return self.model_copy(update={"dropped_chunks": self.dropped_chunks | {reason: ranges}})

    def dropped_seqs(self) -> dict[int, str]:
        """Map the sequence number of every evicted chunk to the reason."""
        return {
            seq: reason
            for reason, ranges in self.dropped_chunks.items()
            for first, last in ranges
            for seq in range(first, last + 1)
        }


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """Locates a sealed chunk that waits in the spool; sorts oldest first."""

    created_ns: int  #: of its session
    key: ChunkKey
    path: Path
    bytes: int
    sealed_s: float  #: time.time() of its file


class SpoolSession:
    """Reads and writes one session's folder in a spool."""

    def __init__(self, path: Path) -> None:
        self.path, self.robot, self.session = path, path.parent.name, path.name

    def journal(self) -> Journal | None:
        """Read the session's journal; None where it cannot be read."""
        try:
            return Journal.model_validate_json((self.path / JOURNAL_NAME).read_bytes())
        except (OSError, ValidationError):
            return None

    def write_journal(self, journal: Journal) -> None:
        """Replace ``session.json`` durably."""
        write_durably(self.path / JOURNAL_NAME, journal.model_dump_json().encode())

    def waiting(self, created_ns: int = 0) -> list[Waiting]:
        """List the sealed chunks that wait here, by sequence number."""
        found = []
        for seq, entry in numbered(self.path):
            try:
                stat = entry.stat()
            except FileNotFoundError:  # acknowledged meanwhile
                continue
            key = ChunkKey(self.robot, self.session, seq)
            path = Path(entry.path)
            found.append(Waiting(created_ns, key, path, stat.st_size, stat.st_mtime))
        return sorted(found)

    def refused(self) -> dict[int, str]:
        """Map the sequence number of every chunk that the trainer refused to the reason."""
        folder = self.path / REFUSED
        reasons = {}
        for seq, entry in numbered(folder):
            note = Path(entry.path).with_suffix(".txt")
            reasons[seq] = note.read_text().strip() if note.exists() else "unknown"
        return reasons

    def refused_path(self, seq: int) -> Path:
        """Give the path of a refused chunk, which may have been removed at the bound."""
        return self.path / REFUSED / f"{seq:08d}.mcap"

    def try_lock(self) -> int | None:
        """Mark the session as running; None where another process did, or the disk is full."""
        with contextlib.suppress(OSError):
            return try_lock(self.path / LOCK_NAME)
        return None


def sessions_in(spool: Path) -> list[SpoolSession]:
    """List the sessions below a spool folder; other files are ignored."""
    found = []
    for path in sorted(spool.glob("*/*")):
        try:
            ChunkKey(path.parent.name, path.name, 0).check()
        except ChunkRefused:
            continue
        if path.is_dir():
            found.append(SpoolSession(path))
    return found


def numbered(folder: Path) -> list[tuple[int, os.DirEntry[str]]]:
    """List the chunk files of a folder with their sequence numbers."""
    try:
        with os.scandir(folder) as entries:
            return [
                (int(e.name[:-5]), e)
                for e in entries
                if e.name.endswith(".mcap") and e.name[:-5].isdecimal()
            ]
    except FileNotFoundError:
        return []
