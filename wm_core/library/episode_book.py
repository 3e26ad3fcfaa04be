"""Keeps book of a growing store: its episodes with their returns, and what became of every step.

Each look takes in what has arrived since the last one, so many chunks at most, from their indices:
no image is unpacked, and a look at a store where nothing is new costs one query.  Chunks that
come late fill their gaps.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wm_core.contract.errors import StoreError, WmError
from wm_core.contract.files import read_json
from wm_core.store.arrived import Arrived
from wm_core.store.episodes import SessionEpisodes, StoredEpisode, pieces_of
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger

log = logging.getLogger(__name__)

MOST_CHUNKS = 200  #: that are taken in by one look


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
        self._sessions: dict[tuple[str, str], SessionEpisodes] = {}
        self._ledger: Ledger | None = None
        self._inode, self._arrival = -1, 0
        self._arrived = Arrived()
        self._sorted: tuple[int, list[StoredEpisode]] = (-1, [])

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

    def episodes(self) -> list[StoredEpisode]:
        """List all episodes in the order in which they were complete; not to be changed."""
        if self._sorted[0] != self.version:
            found = [e for session in self._sessions.values() for e in session.episodes()]
            self._sorted = self.version, sorted(found, key=lambda e: (e.agent_steps, e.number))
        return self._sorted[1]

    def find(self, robot: str, session: str, number: int) -> StoredEpisode:
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
            counts[session.robot] += session.end_step
        return dict(counts)

    def newest_chunks(self) -> Iterator[tuple[str, str, int]]:
        """Give robot, session and number of the last chunk of every session."""
        for (robot, session), found in self._sessions.items():
            yield robot, session, found.last_seq

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
        self._sessions, self._arrived, self.unread = {}, Arrived(), Counter()
        self.version += 1

    def _take(self, row: ChunkRow, *, is_pruned: bool) -> None:
        self._arrival = row.arrival
        name = (row.robot, row.session)
        session = self._sessions.setdefault(name, SessionEpisodes(*name))
        is_new = self._arrived.add(row.key)
        if is_new:
            self.steps, self.chunks = self.steps + row.steps, self.chunks + 1
            self.nbytes += row.bytes
        elif session.holds(row.first_step):
            return  # `wm data gc` gives what it keeps a new arrival
        pieces: list[StoredEpisode] = []
        why = "pruned" if is_pruned else ""
        if not is_pruned:
            try:
                pieces = pieces_of(self.root, row, self.steps)
            except (OSError, ValueError, KeyError, WmError) as error:
                why = "gone" if isinstance(error, FileNotFoundError) else "damaged"
                log.debug("the episodes of chunk %s are not known: %s", tuple(row.key), error)
        if why and is_new:
            self.unread[why] += 1
        session.add(row, pieces)


def store_of(run: Path) -> Path:
    """Give the store that ``run`` learns from, by its settings; its own where they name none."""
    named = read_json(run / "settings.json").get("store")
    return Path(named) if isinstance(named, str) and named else run / "store"
