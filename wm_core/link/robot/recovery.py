"""Finishes what a process that was killed, or whose power was cut, left in its session's folder.

No number is ever given twice and no file replaced: what stands under a number stays, and what is
left over of it is removed and counted.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from wm_core.contract.errors import ChunkRefused, SpecMismatch
from wm_core.contract.files import TMP_SUFFIX, remove_unfinished, write_new
from wm_core.format.chunk import (
    METADATA,
    ChunkKey,
    ChunkMeta,
    check_chunk,
    chunk_path,
    join_steps,
)
from wm_core.format.recording import read_recording
from wm_core.link.robot.journal import (
    GIVEN_UP,
    JOURNAL_NAME,
    Journal,
    SpoolSession,
    read_regular,
)
from wm_core.link.robot.open_log import LOG_NAME, LoggedChunk, read_log
from wm_core.link.robot.reserve import Reserve

log = logging.getLogger(__name__)

DAMAGED_NAME = f"{JOURNAL_NAME}.damaged"  #: what a journal is called that could not be read
_MAX_LEFTOVER_BYTES = 1 << 29

Count = Callable[[str, int], None]


def recover(session: SpoolSession, count: Count) -> Journal | None:
    """Finish the files of a session whose process has ended; the caller holds its lock.

    Args:
        session: of any process before this one.
        count: called with (name, n) for what was recovered and what was not.

    Returns:
        The session's journal as it is on the disk now; None where it is of a newer version.
    """
    if session.has_newer_journal():
        return None
    Reserve(session.path).release()
    remove_unfinished(session.path, JOURNAL_NAME)
    journal = session.journal() or _made_again(session, count)
    before = journal
    spool = session.path.parents[1]
    for path in _names(session, GIVEN_UP):
        if not journal.was_dropped(number_of(path)):
            journal = journal.with_dropped("interrupted", number_of(path), steps_in(path))
    for path in _names(session, TMP_SUFFIX):
        _finish_file(spool, session, path, journal, count)
    journal = _finish_log(spool, session, journal, count)
    known = [number_of(path) + 1 for path in _names(session, ".mcap")]
    journal = journal.model_copy(update={"next_seq": max([journal.next_seq, *known])})
    if journal != before:
        session.write_journal(journal)
    for path in _names(session, GIVEN_UP):  # only now that the journal says so
        path.unlink(missing_ok=True)
    return journal


def number_of(path: Path) -> int:
    """Read the sequence number in the name of a chunk's file; -1 where there is none."""
    number = path.name.split(".")[0]
    return int(number) if number.isascii() and number.isdecimal() and len(number) == 8 else -1


def steps_in(path: Path) -> int:
    """Count the steps of a chunk's file by what it says in front; 0 where it cannot be read."""
    try:
        recording = read_recording(read_regular(path, _MAX_LEFTOVER_BYTES))
        return ChunkMeta.parse(recording.metadata.get(METADATA, {}).get("meta", "")).steps
    except (ChunkRefused, OSError) as error:
        log.error("the steps of %s cannot be counted: %s", path, error)
        return 0


def _names(session: SpoolSession, suffix: str) -> list[Path]:
    """List the chunk files of a session that end so, by number."""
    try:
        names = os.listdir(session.path)
    except OSError:
        return []
    paths = (session.path / name for name in sorted(names) if name.endswith(suffix))
    return [path for path in paths if number_of(path) >= 0]


def _made_again(session: SpoolSession, count: Count) -> Journal:
    """Make the journal of a session without a readable one, from what its files say."""
    path = session.path / JOURNAL_NAME
    waiting = session.waiting()
    created_ns = min((int(chunk.sealed_s * 1e9) for chunk in waiting), default=0)
    if path.exists() or path.is_symlink():
        count("journals_damaged", 1)
        with contextlib.suppress(OSError):
            os.replace(path, session.path / DAMAGED_NAME)
    return Journal(
        robot=session.robot, session=session.session, created_ns=min(max(created_ns, 0), 2**62)
    )


def _finish_file(
    spool: Path, session: SpoolSession, path: Path, journal: Journal, count: Count
) -> None:
    """Give an unfinished file its name, where it is whole and nothing has that name."""
    key = ChunkKey(session.robot, session.session, number_of(path))
    target = chunk_path(spool, key)
    try:
        if journal.was_dropped(key.seq):
            raise ChunkRefused("its steps were counted as dropped")
        check_chunk(read_regular(path, _MAX_LEFTOVER_BYTES), key, max_bytes=_MAX_LEFTOVER_BYTES)
        os.link(path, target)  # a rename would replace what stands there
        count("tmp_recovered", 1)
    except (ChunkRefused, OSError) as error:
        log.info("unfinished file %s is removed: %s", path, error)
        count("tmp_removed", 1)
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _finish_log(spool: Path, session: SpoolSession, journal: Journal, count: Count) -> Journal:
    """Make a chunk of the steps that were written ahead, unless they were sealed."""
    path = session.path / LOG_NAME
    try:
        logged = read_log(read_regular(path, _MAX_LEFTOVER_BYTES))
    except FileNotFoundError:
        return journal
    except (ChunkRefused, OSError) as error:
        log.error("steps that were written ahead are lost: %s: %s", path, error)
        count("logs_damaged", 1)
        logged = None
    if logged is not None and logged.steps:
        journal = _seal_logged(spool, session, logged, journal, count)
    path.unlink(missing_ok=True)
    return journal


def _seal_logged(
    spool: Path, session: SpoolSession, logged: LoggedChunk, journal: Journal, count: Count
) -> Journal:
    """Seal the chunk of a log; raises ``OSError`` where the disk has no room for it yet."""
    meta = logged.meta
    key = ChunkKey(session.robot, session.session, meta.seq)
    target = chunk_path(spool, key)
    if meta.seq < journal.next_seq or journal.was_dropped(meta.seq) or target.exists():
        return journal
    try:
        data = join_steps(logged.steps, meta)
        check_chunk(data, key, max_bytes=_MAX_LEFTOVER_BYTES)
    except (ChunkRefused, SpecMismatch) as error:
        log.error("%d steps that were written ahead are lost: %s", meta.steps, error)
        count("logs_damaged", 1)
        return journal
    if write_new(target, data):
        count("logs_recovered", 1)
        count("steps_recovered", meta.steps)
    update = {"next_seq": meta.seq + 1}
    update["next_step"] = max(journal.next_step, meta.first_step + meta.steps)
    return journal.model_copy(update=update)
