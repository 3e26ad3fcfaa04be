"""Audits what became of every chunk, from sequence numbers, ledger rows and the files' own bytes.

It uses no counters: the robot's journals and file names say what was sealed, and the hashes of the
trainer's files say what is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import chunk_path
from wm_core.link.robot.finished import all_finished
from wm_core.link.robot.journal import Journal, SpoolSession, sessions_in
from wm_core.store.examine import check, read_stored
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger


@dataclass(frozen=True)
class SessionAudit:
    """Accounts for one session; every sealed chunk is acked, pruned, pending or lost."""

    robot: str
    session: str
    sent: int  #: chunks that were sealed: the sequence numbers 0 .. sent - 1
    acked: tuple[int, ...]  #: in the ledger; the file hashes to its row, or was pruned
    pruned: tuple[int, ...]  #: acknowledged, and evicted later to keep the store within its bound
    pending: tuple[int, ...]  #: still in the spool
    lost: tuple[int, ...]  #: none of these; includes those of the next three fields
    dropped: dict[int, str]  #: evicted by the spool at its bound, with the reason
    refused: dict[int, str]  #: refused by the trainer, with the reason
    damaged: dict[int, str]  #: acknowledged once; the file has gone or changed since
    steps_stored: int  #: in the acked chunks
    steps_pruned: int  #: in the pruned chunks, by their rows
    steps_dropped: dict[str, int]  #: steps that the journal lists as dropped, by reason, but for
    #: chunks that had arrived when they gave way
    ended: bool  #: the session was closed in order


@dataclass(frozen=True)
class Audit:
    """Accounts for all sessions together."""

    sessions: tuple[SessionAudit, ...]

    chunks_sent: int
    chunks_acked: int
    chunks_pending: int
    chunks_lost: int
    steps_stored: int


def audit(store: Path, spools: Iterable[Path] = (), *, session: str | None = None) -> Audit:
    """Account for every session that the store or a spool knows, or for one.

    Args:
        store: the store's folder, with its ledger.
        spools: spool folders of the robots that wrote to it.
        session: account for this one only; None for all.
    """
    spools = list(spools)
    spooled = {(s.robot, s.session): s for spool in spools for s in sessions_in(spool)}
    finished = {k: v for spool in spools for k, v in all_finished(spool).items()}
    empty = None
    if (store / LEDGER_NAME).exists():
        ledger = Ledger(store / LEDGER_NAME, read_only=True)
    else:  # nothing has arrived yet, and who only reads makes nothing there
        empty = TemporaryDirectory(prefix="ledger-")
        ledger = Ledger(Path(empty.name) / LEDGER_NAME)
    try:
        keys = dict.fromkeys([*spooled, *finished, *ledger.sessions()])
        found = tuple(
            _audit(store, ledger, *key, spooled.get(key), finished.get(key))
            for key in keys
            if session in (None, key[1])
        )
    finally:
        ledger.close()
        if empty is not None:
            empty.cleanup()
    return Audit(
        found,
        chunks_sent=sum(s.sent for s in found),
        chunks_acked=sum(len(s.acked) for s in found),
        chunks_pending=sum(len(s.pending) for s in found),
        chunks_lost=sum(len(s.lost) for s in found),
        steps_stored=sum(s.steps_stored for s in found),
    )


def _audit(
    store: Path,
    ledger: Ledger,
    robot: str,
    name: str,
    spooled: SpoolSession | None,
    finished: Journal | None,
) -> SessionAudit:
    journal = (spooled.journal() if spooled else None) or finished
    pending = {chunk.key.seq for chunk in spooled.waiting()} if spooled else set()
    refused = spooled.refused() if spooled else {}
    dropped = journal.dropped_seqs() if journal else {}
    # after the spool: what was acknowledged meanwhile counts
    rows = ledger.of_session(robot, name)
    pruned = {row.seq: row.steps for row in rows if row.arrival <= ledger.pruned_through()}
    stored, damaged = {}, {}
    for row in rows:
        try:
            if row.seq in refused and _sha256(spooled, row.seq) != row.sha256:
                continue  # under this number other bytes than the robot's are stored
            if row.seq not in pruned:
                stored[row.seq] = _verified_steps(store, row)
        except (OSError, ChunkRefused) as error:
            damaged[row.seq] = str(error)
    # A process killed between a chunk and its journal leaves a number that only a file knows.
    known = {*pending, *refused, *(row.seq for row in rows)}
    sent = max([journal.next_seq if journal else 0, *(seq + 1 for seq in known)])
    pending -= stored.keys()
    lost = set(range(sent)) - stored.keys() - pruned.keys() - pending
    return SessionAudit(
        robot,
        name,
        sent,
        acked=tuple(sorted(stored)),
        pruned=tuple(sorted(pruned)),
        pending=tuple(sorted(pending)),
        lost=tuple(sorted(lost)),
        dropped={seq: why for seq, why in dropped.items() if seq in lost},
        refused={seq: why for seq, why in refused.items() if seq in lost},
        damaged=damaged,
        steps_stored=sum(stored.values()),
        steps_pruned=sum(pruned.values()),
        steps_dropped=_steps_dropped(journal, stored | pruned),
        ended=bool(journal and journal.closed),
    )


def _steps_dropped(journal: Journal | None, arrived: dict[int, int]) -> dict[str, int]:
    """Count dropped steps by reason, without chunks that had arrived when they gave way.

    ``arrived`` maps the numbers of chunks that the store has, or had, to their steps.
    """
    if journal is None:
        return {}
    counted = dict(journal.dropped_steps)
    for seq, steps in arrived.items():
        for reason, ranges in journal.dropped_chunks.items():
            if reason in counted and any(first <= seq <= last for first, last in ranges):
                counted[reason] = max(0, counted[reason] - steps)
    return counted


def _sha256(spooled: SpoolSession | None, seq: int) -> str:
    """Hash a chunk that the trainer refused; empty where it is not kept."""
    if spooled is None or not spooled.refused_path(seq).exists():
        return ""
    return hashlib.sha256(spooled.refused_path(seq).read_bytes()).hexdigest()


def _verified_steps(store: Path, row: ChunkRow) -> int:
    """Count the steps in the file of ``row``; raise where its bytes changed since."""
    data = read_stored(chunk_path(store, row.key), row)
    return check(data, row.key, max_bytes=len(data)).meta.steps
