"""Reads and writes a spool folder: sessions, their sealed chunks, and what became of each number.

``<spool>/<robot>/<session>/<seq:08d>.mcap`` waits for its acknowledgement; ``session.json`` says
durably how many chunks were sealed and which of them were dropped, so that losses are computed
from sequence numbers and never from counters.  ``refused/`` and ``sent/`` lie beside, and
``open.log`` with the steps of the chunk that is open.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import try_lock, write_durably
from wm_core.contract.spec import Frozen
from wm_core.format.chunk import ChunkKey

JOURNAL_NAME = "session.json"
LOCK_NAME = "lock"
REFUSED = "refused"
SENT = "sent"
GIVEN_UP = ".dropped"  #: suffix of a chunk that is being removed to make room

_MAX_JOURNAL_BYTES = 16 << 20
_MAX_SEQ = 10**8
_Count = Annotated[int, Field(ge=0, lt=2**53)]


class Journal(Frozen):
    """Is a session's record of itself; the numbers 0 .. ``next_seq`` - 1 were given to chunks."""

    version: Literal[1] = 1
    robot: str
    session: str
    task: str = ""
    created_ns: int = Field(0, ge=0, lt=2**63)  #: by the robot's clock; grows from session to
    #: session even where the clock does not
    next_seq: int = Field(0, ge=0, le=_MAX_SEQ)
    next_step: int = Field(0, ge=0, lt=2**53)  #: steps that were put, dropped ones included
    dropped_chunks: dict[str, list[tuple[_Count, _Count]]] = Field(default_factory=dict)
    #: reason -> inclusive ranges of sequence numbers that were dropped
    dropped_steps: dict[str, _Count] = Field(default_factory=dict)  #: by reason
    closed: bool = False  #: closed normally; else the process was killed, or still runs

    @model_validator(mode="after")
    def _numbers(self) -> Journal:
        ranges = [r for found in self.dropped_chunks.values() for r in found]
        if any(first > last or last >= _MAX_SEQ for first, last in ranges):
            raise ValueError(f"numbers of dropped chunks must grow, below {_MAX_SEQ}")
        return self

    def with_dropped(self, reason: str, seq: int, steps: int = 0) -> Journal:
        """Note that chunk ``seq`` of ``steps`` was dropped for ``reason``."""
        ranges = list(self.dropped_chunks.get(reason, []))
        if ranges and ranges[-1][1] == seq - 1:
            ranges[-1] = (ranges[-1][0], seq)
        else:
            ranges.append((seq, seq))
        counted = dict(self.dropped_steps)
        if steps:
            counted[reason] = counted.get(reason, 0) + steps
        dropped = self.dropped_chunks | {reason: ranges}
        return self.model_copy(update={"dropped_chunks": dropped, "dropped_steps": counted})

    def dropped_seqs(self) -> dict[int, str]:
        """Map the sequence number of every dropped chunk to the reason."""
        return {
            seq: reason
            for reason, ranges in self.dropped_chunks.items()
            for first, last in ranges
            for seq in range(first, last + 1)
        }

    def was_dropped(self, seq: int) -> bool:
        """Tell whether chunk ``seq`` was dropped."""
        ranges = (r for found in self.dropped_chunks.values() for r in found)
        return any(first <= seq <= last for first, last in ranges)


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
        """Read the session's journal; None where it is missing, damaged or of a newer version."""
        with contextlib.suppress(OSError, ValidationError):
            text = read_regular(self.path / JOURNAL_NAME, _MAX_JOURNAL_BYTES)
            journal = Journal.model_validate_json(text)
            if (journal.robot, journal.session) == (self.robot, self.session):
                return journal
        return None

    def has_newer_journal(self) -> bool:
        """Tell whether the journal states another version, whose meaning is not known here."""
        try:
            fields = json.loads(read_regular(self.path / JOURNAL_NAME, _MAX_JOURNAL_BYTES))
        except (OSError, ValueError, RecursionError):
            return False
        return isinstance(fields, dict) and fields.get("version", 1) != 1

    def write_journal(self, journal: Journal) -> None:
        """Replace ``session.json`` durably."""
        write_durably(self.path / JOURNAL_NAME, journal.model_dump_json().encode())

    def waiting(self, created_ns: int = 0) -> list[Waiting]:
        """List the sealed chunks that wait here, by sequence number."""
        found = []
        for seq, entry in numbered(self.path):
            try:
                about = entry.stat(follow_symlinks=False)
            except OSError:  # acknowledged meanwhile, or not ours to see
                continue
            if stat.S_ISREG(about.st_mode):
                key = ChunkKey(self.robot, self.session, seq)
                path = Path(entry.path)
                found.append(Waiting(created_ns, key, path, about.st_size, about.st_mtime))
        return sorted(found)

    def refused(self) -> dict[int, str]:
        """Map the sequence number of every chunk that the trainer refused to the reason."""
        folder = self.path / REFUSED
        reasons = {}
        for seq, entry in numbered(folder):
            note = Path(entry.path).with_suffix(".txt")
            reasons[seq] = "unknown"
            with contextlib.suppress(OSError, UnicodeDecodeError):
                reasons[seq] = note.read_text(encoding="utf-8").strip()
        return reasons

    def refused_path(self, seq: int) -> Path:
        """Give the path of a refused chunk, which may have been removed at the bound."""
        return self.path / REFUSED / f"{seq:08d}.mcap"

    def try_lock(self) -> int | None:
        """Mark the session as running; None where another process did, or the disk is full."""
        with contextlib.suppress(OSError):
            return try_lock(self.path / LOCK_NAME)
        return None


def sessions_in(spool: Path, robot: str | None = None) -> list[SpoolSession]:
    """List the sessions below a spool folder, of one robot or all; other files are ignored."""
    found = []
    for name in [robot] if robot else robots_in(spool):
        for session in _folders(spool / name):
            with contextlib.suppress(ChunkRefused):
                ChunkKey(name, session, 0).check()
                found.append(SpoolSession(spool / name / session))
    return found


def numbered(folder: Path) -> list[tuple[int, os.DirEntry[str]]]:
    """List the chunk files of a folder with their sequence numbers; none where it is not ours."""
    return [(int(e.name[:-5]), e) for e in _entries(folder) if _is_chunk(e.name)]


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Read a file that is no link, pipe or device; raises ``OSError`` for more than ``max_bytes``.

    A pipe in its place would wait for ever, and a link could lead out of the spool.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:  # closes the handle
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file", str(path))
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"expected at most {max_bytes} bytes", str(path))
    return data


def robots_in(spool: Path) -> list[str]:
    """Name the folders of a spool, one of each robot."""
    return _folders(spool)


def _folders(folder: Path) -> list[str]:
    return sorted(e.name for e in _entries(folder) if _is_folder(e))


def _entries(folder: Path) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:  # it is missing, or belongs to somebody else
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_chunk(name: str) -> bool:
    number = name[:-5]
    return name.endswith(".mcap") and number.isascii() and number.isdecimal() and len(number) == 8
