"""Keeps the trainer's ledger of chunks: one SQLite row per durable file.

A row is the acknowledgement: it is committed (WAL, synchronous=FULL) only after its file is on the
disk.  ``arrival`` grows by commit, so a reader that remembers the last one sees each row once.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.errors import StoreError
from wm_core.format.chunk import ChunkKey, ChunkMeta

LEDGER_NAME = "ledger.sqlite"
SCHEMA_VERSION = 1
_BUSY_S = 30.0  # longest wait for another process's commit
_SCHEMA = """
CREATE TABLE IF NOT EXISTS chunks (
    arrival INTEGER PRIMARY KEY AUTOINCREMENT,
    robot TEXT NOT NULL, session TEXT NOT NULL, seq INTEGER NOT NULL,
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    steps INTEGER NOT NULL, first_step INTEGER NOT NULL, received_ns INTEGER NOT NULL,
    UNIQUE (robot, session, seq));
CREATE TABLE IF NOT EXISTS quarantine (
    robot TEXT NOT NULL, session TEXT NOT NULL, seq INTEGER NOT NULL,
    sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    reason TEXT NOT NULL, received_ns INTEGER NOT NULL,
    UNIQUE (robot, session, seq, sha256));
CREATE TABLE IF NOT EXISTS pruned (through INTEGER NOT NULL);
"""
_COLUMNS = "arrival, robot, session, seq, sha256, bytes, steps, first_step, received_ns"


class ChunkRow(NamedTuple):
    """Describes one acknowledged chunk."""

    arrival: int
    robot: str
    session: str
    seq: int
    sha256: str
    bytes: int
    steps: int
    first_step: int
    received_ns: int

    @property
    def key(self) -> ChunkKey:
        return ChunkKey(self.robot, self.session, self.seq)


class Refused(NamedTuple):
    """Describes one chunk in quarantine."""

    robot: str
    session: str
    seq: int
    sha256: str
    bytes: int
    reason: str
    received_ns: int


class Ledger:
    """Records what is stored; safe to share between threads and to open from several processes.

    Args:
        path: the database file; it and its folder are made where they are missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise StoreError(
                f"{self.path} cannot be opened as a ledger ({error}); make room if the disk is "
                "full; if the file is damaged, move it away, and `wm serve` rebuilds it from the "
                "chunk files"
            ) from error
        except StoreError:
            self._db.close()
            raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == SCHEMA_VERSION:
            return
        if version != 0:
            raise StoreError(
                f"{self.path}: expected ledger version {SCHEMA_VERSION}, got {version}"
            )
        with self.writing():
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer, among threads and processes; commit at the end, or nothing."""
        with self._lock:
            if self._db.in_transaction:  # inside another `writing` of this thread
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    def add(self, key: ChunkKey, sha256: str, size: int, meta: ChunkMeta) -> None:
        """Enter a chunk whose file is already durable; raises where the key is taken."""
        row = (*key, sha256, size, meta.steps, meta.first_step, time.time_ns())
        with self.writing():
            self._db.execute(
                f"INSERT INTO chunks ({_COLUMNS.removeprefix('arrival, ')})"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def add_refused(self, key: ChunkKey, sha256: str, size: int, reason: str) -> None:
        """Enter why a chunk is in quarantine; the same bytes under the same key count once."""
        with self.writing():
            self._db.execute(
                "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, sha256, size, reason, time.time_ns()),
            )

    def find(self, key: ChunkKey) -> ChunkRow | None:
        """Find the row of ``key``, if that chunk was acknowledged."""
        query = f"SELECT {_COLUMNS} FROM chunks WHERE robot = ? AND session = ? AND seq = ?"
        rows = self._rows(query, tuple(key))
        return rows[0] if rows else None

    def since(self, arrival: int, *, limit: int = -1) -> list[ChunkRow]:
        """List rows that arrived after ``arrival`` (0: all), oldest first; at most ``limit``."""
        query = f"SELECT {_COLUMNS} FROM chunks WHERE arrival > ? ORDER BY arrival LIMIT ?"
        return self._rows(query, (arrival, limit))

    def of_session(self, robot: str, session: str) -> list[ChunkRow]:
        """List the rows of one session by sequence number."""
        query = f"SELECT {_COLUMNS} FROM chunks WHERE robot = ? AND session = ? ORDER BY seq"
        return self._rows(query, (robot, session))

    def sessions(self) -> list[tuple[str, str]]:
        """List (robot, session) of everything stored, in order of first arrival."""
        return self._fetch(
            "SELECT robot, session FROM chunks GROUP BY robot, session ORDER BY MIN(arrival)"
        )

    def refused(self) -> list[Refused]:
        """List every chunk in quarantine, oldest first."""
        return [Refused(*r) for r in self._fetch("SELECT * FROM quarantine ORDER BY received_ns")]

    def counts(self) -> dict[str, int]:
        """Count chunks, steps and bytes stored and in quarantine; names the last arrival."""
        query = (
            "SELECT COUNT(*), COALESCE(SUM(steps), 0), COALESCE(SUM(bytes), 0),"
            " COALESCE(MAX(arrival), 0), (SELECT COUNT(*) FROM quarantine),"
            " (SELECT COALESCE(SUM(bytes), 0) FROM quarantine) FROM chunks"
        )
        names = ("chunks", "steps", "bytes", "arrival", "quarantined", "quarantined_bytes")
        return dict(zip(names, self._fetch(query)[0], strict=True))

    def pruned_through(self) -> int:
        """Return the last arrival whose file was evicted for room; 0 where none was."""
        return int(self._fetch("SELECT COALESCE(MAX(through), 0) FROM pruned")[0][0])

    def mark_pruned(self, through: int) -> None:
        """Remember that the files up to arrival ``through`` are gone; their rows stay."""
        with self.writing():
            self._db.execute("INSERT INTO pruned VALUES (?)", (through,))

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        with self._lock:
            self._db.close()

    def _rows(self, query: str, values: tuple[object, ...]) -> list[ChunkRow]:
        return [ChunkRow(*r) for r in self._fetch(query, values)]

    def _fetch(self, query: str, values: tuple[object, ...] = ()) -> list[tuple]:
        with self._lock:
            return self._db.execute(query, values).fetchall()
