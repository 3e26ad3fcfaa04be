"""Keeps book of a growing store: its episodes with their returns, and what became of every step.

Each look takes in what has arrived since the last one, so many chunks at most, from their indices:
no image is unpacked, and a look at a store where nothing is new costs one query.  Chunks that
come late fill their gaps.
"""

from __future__ import annotations

import logging
import sqlite3
from bisect import insort
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from wm_core.contract.errors import StoreError, WmError
from wm_core.store.index import Index, load_index, step_number
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger

log = logging.getLogger(__name__)

MOST_CHUNKS = 200  #: that are taken in by one look
_Ending = Literal["terminal", "last", "gap", "open"]


class BookedEpisode(NamedTuple):
    """What is known of one episode without its steps."""

    robot: str
    session: str
    number: int  #: in its session, from 0
    first_step: int  #: index of its first step in the session
    steps: int
    total: float  #: sum of its rewards that are finite: its return
    version: int  #: newest policy that acted in it; -1 where none did
    arrived_ns: int  #: when its last chunk arrived, nanoseconds since 1970
    agent_steps: int  #: steps that had arrived with its last chunk
    end: _Ending  #: ``gap``: before steps that are missing; ``open``: it may go on
    is_whole: bool  #: begins with ``is_first`` and has an end


class _Piece(NamedTuple):
    """Steps of one chunk that belong to one episode."""

    first_step: int
    steps: int
    total: float
    version: int
    begins: bool
    ends: bool
    is_terminal: bool


class _Chunk(NamedTuple):
    """One chunk in short; ``pieces`` is empty where it could not be read."""

    seq: int
    first_step: int
    steps: int
    arrived_ns: int
    agent_steps: int
    pieces: tuple[_Piece, ...]


@dataclass
class _Session:
    """Joins the chunks of one session to its episodes."""

    robot: str
    session: str
    chunks: list[_Chunk] = field(default_factory=list)
    ended: list[BookedEpisode] = field(default_factory=list)
    present: BookedEpisode | None = None
    expected: int = -1  #: step that would go on with ``present``
    is_stale: bool = False  #: a chunk came late, so that everything is joined anew
    end: int = 0  #: steps that its robot has numbered

    def add(self, chunk: _Chunk) -> None:
        """Take in a chunk."""
        self.end = max(self.end, chunk.first_step + chunk.steps)
        if self.chunks and chunk.seq < self.chunks[-1].seq:
            insort(self.chunks, chunk)
            self.is_stale = True
            return
        self.chunks.append(chunk)
        if not self.is_stale:
            self._join(chunk)

    def episodes(self) -> list[BookedEpisode]:
        """List its episodes in order; the last one may be open."""
        if self.is_stale:
            self.ended, self.present, self.expected, self.is_stale = [], None, -1, False
            for chunk in self.chunks:
                self._join(chunk)
        if self.present is None:
            return self.ended
        return [*self.ended, self.present._replace(is_whole=False)]

    def _join(self, chunk: _Chunk) -> None:
        if chunk.first_step != self.expected or not chunk.pieces:
            self._end("gap")
        self.expected = chunk.first_step + chunk.steps if chunk.pieces else -1
        for piece in chunk.pieces:
            if piece.begins:
                self._end("gap")
            before = self.present or BookedEpisode(
                self.robot, self.session, len(self.ended), piece.first_step, 0, 0.0, -1, 0, 0,
                "open", piece.begins,
            )  # fmt: skip
            self.present = before._replace(
                steps=before.steps + piece.steps,
                total=before.total + piece.total,
                version=max(before.version, piece.version),
                arrived_ns=max(before.arrived_ns, chunk.arrived_ns),
                agent_steps=max(before.agent_steps, chunk.agent_steps),
            )
            if piece.ends:
                self._end("terminal" if piece.is_terminal else "last")

    def _end(self, end: _Ending) -> None:
        if self.present is not None:
            whole = self.present.is_whole and end in ("terminal", "last")
            self.ended.append(self.present._replace(end=end, is_whole=whole))
            self.present = None


class EpisodeBook:
    """Follows a store; for one thread at a time.

    Args:
        root: the store's folder, which need not be there yet; nothing is written to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.steps = self.chunks = self.nbytes = 0  #: acknowledged so far, of every robot
        self.unread: Counter[str] = Counter()  #: chunks whose episodes are not known, by reason
        self.version = 0  #: grows with everything that is taken in
        self.is_behind = False  #: more has arrived than one look takes in
        self.problem = ""  #: why the ledger could not be read; empty where it could
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._ledger: Ledger | None = None
        self._inode, self._arrival = -1, 0
        self._sorted: tuple[int, list[BookedEpisode]] = (-1, [])

    def refresh(self, most: int = MOST_CHUNKS) -> bool:
        """Take in up to ``most`` chunks that have arrived; returns whether there were any."""
        try:
            rows = self._new_rows(most)
            self.problem = ""
        except (StoreError, sqlite3.Error, OSError) as error:
            self.problem = " ".join(str(error).split())
            self.close()
            return False
        pruned = self._ledger.pruned_through() if rows and self._ledger else 0
        for row in rows:
            self._take(row, is_pruned=row.arrival <= pruned)
        self.is_behind = len(rows) == most
        self.version += bool(rows)
        return bool(rows)

    def episodes(self) -> list[BookedEpisode]:
        """List all episodes in the order in which they were complete; not to be changed."""
        if self._sorted[0] != self.version:
            found = [e for session in self._sessions.values() for e in session.episodes()]
            self._sorted = self.version, sorted(found, key=lambda e: (e.agent_steps, e.number))
        return self._sorted[1]

    def find(self, robot: str, session: str, number: int) -> BookedEpisode:
        """Find one episode.

        Raises:
            StoreError: where the store has no such session, or no such episode in it.
        """
        found = self._sessions.get((robot, session))
        episodes = [] if found is None else found.episodes()
        if not 0 <= number < len(episodes):
            raise StoreError(
                f"{self.root}: expected an episode of session {session[:8]!r} of {robot!r} from 0 "
                f"to {len(episodes) - 1}, got {number}"
                if found is not None
                else f"{self.root} holds no session {session[:8]!r} of {robot!r}"
            )
        return episodes[number]

    def numbered(self) -> dict[str, int]:
        """Count, by robot, the steps that its sessions have numbered: the recorded ones."""
        counts: Counter[str] = Counter()
        for session in self._sessions.values():
            counts[session.robot] += session.end
        return dict(counts)

    def newest_chunks(self) -> Iterator[tuple[str, str, int]]:
        """Give robot, session and number of the last chunk of every session."""
        for (robot, session), found in self._sessions.items():
            yield robot, session, found.chunks[-1].seq

    def ledger(self) -> Ledger | None:
        """Give the open ledger; None before the first look or where there is none."""
        return self._ledger

    def close(self) -> None:
        """Close the ledger; a second call does nothing, and ``refresh`` opens it again."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _new_rows(self, most: int) -> list[ChunkRow]:
        path = self.root / LEDGER_NAME
        try:
            inode = path.stat().st_ino
        except FileNotFoundError:
            self.close()
            return []
        if self._ledger is None or inode != self._inode:
            self.close()
            if inode != self._inode:  # another store, or a ledger that was made anew
                self._forget()
            self._ledger, self._inode = Ledger(path, read_only=True), inode
        return self._ledger.since(self._arrival, limit=most)

    def _forget(self) -> None:
        self.steps = self.chunks = self.nbytes = self._arrival = 0
        self._sessions, self.unread = {}, Counter()
        self.version += 1

    def _take(self, row: ChunkRow, *, is_pruned: bool) -> None:
        self._arrival = row.arrival
        self.steps, self.chunks = self.steps + row.steps, self.chunks + 1
        self.nbytes += row.bytes
        pieces: tuple[_Piece, ...] = ()
        reason = "pruned" if is_pruned else ""
        if not is_pruned:
            try:
                pieces = tuple(_pieces(load_index(self.root, row, keep=False), row))
            except (OSError, ValueError, KeyError, WmError) as error:
                reason = "gone" if isinstance(error, FileNotFoundError) else "damaged"
                log.debug("the episodes of chunk %s are not known: %s", tuple(row.key), error)
        if reason:
            self.unread[reason] += 1
        key = (row.robot, row.session)
        session = self._sessions.setdefault(key, _Session(*key))
        session.add(
            _Chunk(row.seq, row.first_step, row.steps, row.received_ns, self.steps, pieces)
        )


def _pieces(index: Index, row: ChunkRow) -> Iterator[_Piece]:
    """Cut the steps of a chunk where episodes begin and end."""
    firsts, lasts = (step_number(index.steps, name) for name in ("is_first", "is_last"))
    edges = {0, *np.flatnonzero(firsts).tolist(), *(np.flatnonzero(lasts) + 1).tolist()}
    starts = sorted(edge for edge in edges if edge < row.steps)
    for start, stop in zip(starts, [*starts[1:], row.steps], strict=True):
        steps = index.steps[start:stop]
        reward = steps["reward"].astype(np.float64)
        yield _Piece(
            row.first_step + start,
            stop - start,
            float(reward[np.isfinite(reward)].sum()),
            int(steps["policy_version"].max()),
            bool(firsts[start]),
            bool(lasts[stop - 1]),
            bool(step_number(steps[-1:], "is_terminal")[0]),
        )
