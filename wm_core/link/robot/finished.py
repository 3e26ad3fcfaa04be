"""Removes sessions of which nothing is left to send, and keeps a line of each.

``<spool>/<robot>/finished.jsonl`` holds the journals of removed sessions, one a line, so that an
audit still knows every number and every count.  At its bound the older half is folded into sums.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from wm_core.contract.files import (
    json_text,
    remove_unfinished,
    sync_folder,
    try_lock,
    write_durably,
)
from wm_core.contract.frozen import Frozen
from wm_core.link.robot.journal import (
    JOURNAL_NAME,
    LOCK_NAME,
    REFUSED,
    SENT,
    Journal,
    SpoolSession,
    read_regular,
    robots_in,
)
from wm_core.link.robot.recovery import DAMAGED_NAME
from wm_core.link.robot.reserve import RESERVE_NAME

FINISHED_NAME = "finished.jsonl"
MAX_FINISHED_BYTES = 4 << 20
_KEPT_EMPTY = (SENT, REFUSED)
_REMOVED = (JOURNAL_NAME, LOCK_NAME, DAMAGED_NAME, RESERVE_NAME)


class Folded(Frozen):
    """Sums up sessions whose own lines were removed."""

    sessions: int = Field(0, ge=0)
    chunks: int = Field(0, ge=0)
    steps: int = Field(0, ge=0)
    dropped_steps: dict[str, int] = Field(default_factory=dict)  #: by reason


def finish(
    ended: Sequence[tuple[SpoolSession, Journal]], *, max_bytes: int = MAX_FINISHED_BYTES
) -> int:
    """Remove sessions of one robot that have sent everything; the caller holds their locks.

    Args:
        ended: sessions whose processes have ended, and their journals.
        max_bytes: of the file of lines, beyond which its older half is folded.

    Returns:
        How many were removed; of the others something is left, if only a file of the owner's.
    """
    empty = [(session, journal) for session, journal in ended if _is_empty(session)]
    if not empty:
        return 0
    robot = empty[0][0].path.parent
    lock = try_lock(robot / f"{FINISHED_NAME}.lock")
    if lock is None:
        return 0
    try:
        remove_unfinished(robot, FINISHED_NAME)
        journals = [journal for _, journal in empty if journal.next_seq or journal.next_step]
        if journals:
            _add(robot / FINISHED_NAME, journals, max_bytes)
        for session, _ in empty:
            _remove(session)
    finally:
        os.close(lock)
    return len(empty)


def _remove(session: SpoolSession) -> None:
    for name in _REMOVED:
        (session.path / name).unlink(missing_ok=True)
    for name in _KEPT_EMPTY:
        with contextlib.suppress(FileNotFoundError):
            (session.path / name).rmdir()
    session.path.rmdir()


def finished_in(spool: Path, robot: str) -> tuple[list[Journal], Folded]:
    """Read the journals of a robot's removed sessions, oldest first, and the sums of older ones.

    Lines that cannot be read are left out.
    """
    found: dict[str, Journal] = {}
    folded = Folded()
    try:
        text = read_regular(spool / robot / FINISHED_NAME, 4 * MAX_FINISHED_BYTES)
    except OSError:
        return [], folded
    for line in text.splitlines():
        with contextlib.suppress(ValidationError):
            if line.startswith(b'{"folded"'):
                folded = Folded.model_validate(_value(line))
                continue
            journal = Journal.model_validate_json(line)
            found[journal.session] = journal  # a kill may have left its line twice
    return list(found.values()), folded


def all_finished(spool: Path) -> dict[tuple[str, str], Journal]:
    """Map robot and session of each removed session that has a line to its journal."""
    return {
        (journal.robot, journal.session): journal
        for robot in robots_in(spool)
        for journal in finished_in(spool, robot)[0]
    }


def _value(line: bytes) -> object:
    try:
        return json.loads(line)["folded"]
    except (ValueError, RecursionError, KeyError):
        return None


def _is_empty(session: SpoolSession) -> bool:
    try:
        names = set(os.listdir(session.path))
        kept = [
            name
            for folder in _KEPT_EMPTY
            if folder in names
            for name in os.listdir(session.path / folder)
        ]
    except OSError:
        return False
    return not kept and names <= {*_REMOVED, *_KEPT_EMPTY}


def _add(path: Path, journals: Sequence[Journal], max_bytes: int) -> None:
    lines = b"".join(journal.model_dump_json().encode() + b"\n" for journal in journals)
    size = 0
    with contextlib.suppress(FileNotFoundError):
        size = path.stat().st_size
    if size + len(lines) > max_bytes:
        _fold(path)
    handle = os.open(
        path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
    )
    try:
        end = os.fstat(handle).st_size
        torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
        os.write(handle, b"\n" * torn + lines)
        os.fsync(handle)
    finally:
        os.close(handle)
    sync_folder(path.parent)


def _fold(path: Path) -> None:
    """Replace the older half of the lines by their sums."""
    journals, folded = finished_in(path.parents[1], path.parent.name)
    half = len(journals) // 2 + 1
    dropped = Counter(folded.dropped_steps)
    for journal in journals[:half]:
        dropped.update(journal.dropped_steps)
    sums = Folded(
        sessions=folded.sessions + len(journals[:half]),
        chunks=folded.chunks + sum(journal.next_seq for journal in journals[:half]),
        steps=folded.steps + sum(journal.next_step for journal in journals[:half]),
        dropped_steps=dict(dropped),
    )
    lines = [json_text({"folded": sums.model_dump()}, separators=(",", ":"))]
    lines += [journal.model_dump_json() for journal in journals[half:]]
    write_durably(path, "".join(f"{line}\n" for line in lines).encode())
