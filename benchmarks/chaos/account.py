"""Accounts for every acknowledgement, chunk and step of the campaign, from bytes and numbers.

What the robots say they counted is compared with what is missing; nothing is believed.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, Field

from benchmarks.chaos.steps import ProgressFile, wrong_steps
from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import ChunkKey, check_chunk, chunk_path
from wm_core.link.robot.finished import all_finished
from wm_core.link.robot.journal import SENT, SpoolSession
from wm_core.link.robot.spool_disk import EARLIER
from wm_core.store.ledger import LEDGER_NAME, Ledger


class Injured(BaseModel):
    """A chunk that the campaign itself damaged in a robot's spool."""

    first_step: int
    steps: int


class Account(BaseModel):
    """Says what became of everything; a campaign is passed where ``faults`` is empty."""

    acknowledged: int = 0  #: chunks whose acknowledgement was seen on the wire
    chunks: int = 0  #: in the ledger
    steps_put: int = 0  #: handed to the spools
    steps_stored: int = 0
    steps_pending: int = 0  #: still in a spool
    steps_set_aside: int = 0  #: in a robot's ``refused/``: kept, and for a person to look at
    steps_injured: int = 0  #: in chunks that the campaign damaged before they were sent
    steps_in_memory: int = 0  #: newest steps of a killed robot that were not sealed yet
    most_in_memory: int = 0  #: of one kill
    steps_dropped: dict[str, int] = Field(
        default_factory=dict
    )  #: counted by the robots, by reason
    set_aside: dict[str, int] = Field(default_factory=dict)  #: chunks by reason
    lost: int = 0  #: acknowledged chunks that the store does not have, bit for bit
    twice: int = 0  #: steps that are stored more than once
    corrupt: int = 0  #: stored chunks with another step than their numbers promise
    uncounted: int = 0  #: missing steps that no robot counted
    faults: list[str] = Field(default_factory=list)  #: the same in words, the first 50

    def fault(self, text: str) -> None:
        """Note what must not be."""
        if len(self.faults) < 50:
            self.faults.append(text)


def check_acknowledged(store: Path, acks: Iterable[tuple[str, str]], account: Account) -> None:
    """Compare acknowledgements with the ledger's rows and the bytes of the files."""
    ledger = Ledger(store / LEDGER_NAME)
    try:
        for path, sha256 in acks:
            robot, session, seq = path.split("/")
            key = ChunkKey(robot, session, int(seq))
            row, file = ledger.find(key), chunk_path(store, key)
            stored = file.read_bytes() if file.exists() else b""
            if row is None or row.sha256 != sha256:
                account.fault(f"{path} was acknowledged and has no row with its hash")
            elif hashlib.sha256(stored).hexdigest() != sha256:
                account.fault(f"{path} was acknowledged and its file has other bytes")
            else:
                continue
            account.lost += 1
    finally:
        ledger.close()


def check_store(store: Path, account: Account) -> dict[tuple[str, str], Counter[int]]:
    """Decode every stored chunk; returns how often each step of each session is stored."""
    numbers: dict[tuple[str, str], Counter[int]] = defaultdict(Counter)
    hashes: set[str] = set()
    ledger = Ledger(store / LEDGER_NAME)
    rows = ledger.since(0)
    ledger.close()
    for row in rows:
        account.chunks += 1
        if row.sha256 in hashes:
            account.fault(f"{tuple(row.key)} has the bytes of another chunk")
        hashes.add(row.sha256)
        try:
            data = chunk_path(store, row.key).read_bytes()
            if hashlib.sha256(data).hexdigest() != row.sha256:
                raise ChunkRefused("other bytes than its row says")
            columns = check_chunk(data, row.key, max_bytes=len(data))
            wrong = wrong_steps(columns)
        except (OSError, ChunkRefused) as error:
            wrong = [f"{tuple(row.key)}: {error}"]
        if wrong:
            account.corrupt += 1
            account.fault(wrong[0])
            continue
        first = columns.meta.first_step
        numbers[row.key[:2]].update(range(first, first + columns.meta.steps))
    for (robot, session), found in numbers.items():
        twice = [number for number, times in found.items() if times > 1]
        account.twice += len(twice)
        account.steps_stored += len(found)
        if twice:
            account.fault(f"{robot}/{session}: stored twice: steps {twice[:8]}")
    return numbers


def check_sent(store: Path, session: SpoolSession, injured: set[str], account: Account) -> None:
    """Compare what a robot keeps as acknowledged with what is stored, byte by byte."""
    for file in sorted((session.path / SENT).glob("*.mcap")):
        key = ChunkKey(session.robot, session.session, int(file.stem))
        if name(key) in injured:
            continue
        path = chunk_path(store, key)
        if not path.exists() or path.read_bytes() != file.read_bytes():
            account.lost += 1
            account.fault(
                f"{name(key)}: the robot holds it acknowledged, the store has other bytes"
            )


def check_session(
    session: SpoolSession,
    progress: Path,
    stored: Counter[int],
    injured: dict[str, Injured],
    account: Account,
) -> None:
    """Account for every step of one session."""
    done = ProgressFile(progress).read()
    account.steps_put += done.put
    present = set(stored)
    spans = {
        n: i for n, i in injured.items() if n.startswith(f"{session.robot}/{session.session}/")
    }
    hurt = {n for i in spans.values() for n in range(i.first_step, i.first_step + i.steps)}
    hurt -= present
    account.steps_injured += len(hurt)
    present |= hurt
    for kept, folder in (("pending", session.path), ("set_aside", session.path / "refused")):
        steps = _numbers_in(folder, session, account if kept == "set_aside" else None) - present
        if kept == "pending":
            account.steps_pending += len(steps)
        else:
            account.steps_set_aside += len(steps)
        present |= steps
    missing = set(range(done.put)) - present
    finished = all_finished(session.path.parents[1])
    journal = session.journal() or finished.get((session.robot, session.session))
    last = max(present, default=-1)
    tail = {n for n in missing if n > last}
    inner = len(missing) - len(tail)
    own = journal.dropped_steps if journal else {}
    own = {reason: n for reason, n in own.items() if not reason.startswith(EARLIER)}
    counted = max(sum(own.values()), done.dropped)
    for reason, steps in own.items():
        account.steps_dropped[reason] = account.steps_dropped.get(reason, 0) + steps
    uncounted = max(0, inner - counted)
    # Of the newest steps, none that the spool called durable may be missing without a count.
    sealed_lost = max(0, done.sealed - len(present) - counted)
    in_memory = max(0, len(missing) - counted)
    account.steps_in_memory += in_memory
    account.most_in_memory = max(account.most_in_memory, in_memory)
    ended = journal is not None and journal.closed
    if ended and in_memory:
        uncounted = max(uncounted, in_memory)
    if uncounted or sealed_lost:
        account.uncounted += max(uncounted, sealed_lost)
        account.fault(
            f"{session.robot}/{session.session}: {done.put} put, {done.sealed} sealed,"
            f" {len(present)} present, {counted} counted as dropped, {inner} missing within"
            f" and {len(tail)} at the end; ended in order: {ended}"
        )


def _numbers_in(folder: Path, session: SpoolSession, reasons: Account | None) -> set[int]:
    """Numbers of the steps in the chunk files of a folder; why they are there, to ``reasons``."""
    found: set[int] = set()
    for file in folder.glob("*.mcap"):
        if reasons is not None:
            note = file.with_suffix(".txt")
            why = note.read_text().strip()[:60] if note.exists() else "no reason was noted"
            reasons.set_aside[why] = reasons.set_aside.get(why, 0) + 1
        key = ChunkKey(session.robot, session.session, int(file.stem))
        try:
            meta = check_chunk(file.read_bytes(), key, max_bytes=1 << 30).meta
        except ChunkRefused:
            continue
        found |= set(range(meta.first_step, meta.first_step + meta.steps))
    return found


def name(key: ChunkKey) -> str:
    """Name a chunk as its path on the wire does."""
    return f"{key.robot}/{key.session}/{key.seq}"
