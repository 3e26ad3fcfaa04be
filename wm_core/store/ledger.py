"""Keeps the trainer's ledger of chunks: one SQLite row per durable file.

A row is the acknowledgement: it is committed (WAL, synchronous=FULL) only after its file is on the
disk.  ``arrival`` grows by commit, so a reader that remembers the last one sees each row once.
What is read passes the view ``sound``: a row whose numbers or names are out of bounds, however it
came to be there, is never handed out; ``set_aside_unsound`` moves it away.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from wm_core.contract.errors import StoreError, shown
from wm_core.format.chunk import ChunkKey, ChunkMeta
from wm_core.format.meta import MAX_SEQ
from wm_core.store.read_only import ReadOnly
from wm_core.store.rows import COLUMNS, MAX_REASON, SOUND
from wm_core.store.rows import ChunkRow as ChunkRow
from wm_core.store.rows import Refused as Refused

LEDGER_NAME = "ledger.sqlite"
SCHEMA_VERSION = 2
_BUSY_S = 30.0  # longest wait for another process's commit
#: words of errors that pass; any other one, such as a column that is gone, is of damage
_PASSES = ("locked", "full", "disk I/O", "unable to open")
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
CREATE TABLE IF NOT EXISTS unsound (content TEXT NOT NULL, noticed_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS damaged (
    arrival INTEGER PRIMARY KEY, reason TEXT NOT NULL, noticed_ns INTEGER NOT NULL);
"""
_VIEW = f"CREATE TEMP VIEW sound AS SELECT * FROM main.chunks WHERE {SOUND}"


class Ledger:
    """Records what is stored; safe to share between threads and to open from several processes.

    Reading has a connection of its own, so that no one who asks waits for a group that is being
    written; within ``writing`` a thread sees what it has written itself.

    Args:
        path: the database file; it and its folder are made where they are missing.
        read_only: write nothing, not even a missing file: neither the ledger nor its folder
            changes, and what other processes write is seen all the same.

    Raises:
        StoreError: by every method, where the file is damaged, with what to do; and where a
            reader's ledger is not there.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path, self.read_only = Path(path), read_only
        self._look = ReadOnly(self.path) if read_only else None
        self._lock, self._read_lock = threading.RLock(), threading.RLock()
        self._writer: int | None = None  # the thread inside `writing`
        self._usage: dict[str, int] | None = None
        self._usage_pruned = -1
        with contextlib.ExitStack() as opened:
            try:
                if self._look is not None:
                    opened.callback(self._look.close)
                    self._reader = self._db = self._look.connection(_ready_to_read)
                else:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._db = self._connect()
                    opened.callback(self._db.close)
                    self._prepare()
                    self._reader = self._connect()
                    self._reader.execute("PRAGMA query_only=1")
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                raise self._unusable(error) from error
            opened.pop_all()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(
            self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        return _with_view(db)

    def _unusable(self, error: Exception) -> StoreError:
        run = self.path.parent.parent
        return StoreError(
            f"{self.path} cannot be used as a ledger ({shown(error)}); make room if the disk is "
            f"full; if the file is damaged, `wm store rebuild --root {run}` makes a new one from "
            "the chunk files and moves this one away"
        )

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        if _version(self._db, self.path) == SCHEMA_VERSION:
            return
        with self.writing():  # version 2 only adds: what version 1 wrote stays as it is
            for statement in _SCHEMA.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only writer, among threads and processes; commit at the end, or nothing."""
        if self.read_only:
            raise StoreError(f"{self.path} was opened to be read; nothing is written to it")
        with self._lock:
            if self._db.in_transaction:  # inside another `writing` of this thread
                yield
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._writer = threading.get_ident()
                yield
                self._db.execute("COMMIT")
            except sqlite3.OperationalError:
                raise  # held by another process, or no room: that passes
            except sqlite3.DatabaseError as error:
                raise self._unusable(error) from error
            finally:
                self._writer = None
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                    self._usage = None

    def add(self, key: ChunkKey, sha256: str, size: int, meta: ChunkMeta) -> int:
        """Enter a chunk and return its arrival; raises ``StoreError`` where the key is taken.

        Call it inside ``writing`` and make the file durable before that ends.
        """
        row = (*key, sha256, size, meta.steps, meta.first_step, time.time_ns())
        statement = (
            f"INSERT INTO chunks ({COLUMNS.removeprefix('arrival, ')})"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        with self.writing():
            try:
                cursor = self._db.execute(statement, row)
            except sqlite3.IntegrityError as error:
                if self.find(key) is not None:
                    raise StoreError(f"chunk {tuple(key)} has a row already") from error
                self.set_aside_unsound()  # what has its key is no row that anyone could read
                cursor = self._db.execute(statement, row)
            with self._read_lock:
                if self._usage is not None:
                    self._usage[key.robot] = self._usage.get(key.robot, 0) + size
            return int(cursor.lastrowid or 0)

    def restore(self, rows: Iterable[ChunkRow], pruned: int) -> None:
        """Enter rows of another ledger as they were, and the last arrival that was evicted."""
        marks = ", ".join("?" * len(ChunkRow._fields))
        with self.writing():
            self._db.executemany(f"INSERT INTO chunks ({COLUMNS}) VALUES ({marks})", rows)
            if pruned:
                self.mark_pruned(pruned)

    def fold(self) -> None:
        """Fold the log of recent commits into the database file, durably."""
        with self._lock:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def remove(self, arrival: int) -> None:
        """Take back a row that was added within the same ``writing``."""
        with self.writing():
            self._db.execute("DELETE FROM chunks WHERE arrival = ?", (arrival,))
            self._usage = None

    def set_aside_unsound(self) -> int:
        """Move rows that are out of bounds to the table ``unsound``; returns how many."""
        columns = ("robot", "session", "seq", "sha256", "bytes", "steps", "first_step")
        unsound = f"NOT coalesce({SOUND}, 0)"
        listed = " || ' ' || ".join(f"quote({name})" for name in columns)
        content = f"substr({listed}, 1, ?)"
        with self.writing():
            self._db.execute(
                f"INSERT INTO unsound SELECT {content}, ? FROM chunks WHERE {unsound}",
                (MAX_REASON, time.time_ns()),
            )
            found = self._db.execute(f"DELETE FROM chunks WHERE {unsound}").rowcount
            if found:  # what a wild arrival has used up of the numbers is given back
                self._db.execute(
                    "UPDATE sqlite_sequence SET seq ="
                    " (SELECT COALESCE(MAX(arrival), 0) FROM chunks) WHERE name = 'chunks'"
                )
            return int(found)

    def add_refused(self, key: ChunkKey, sha256: str, size: int, reason: str) -> None:
        """Enter why a chunk is in quarantine; the same bytes under the same key count once."""
        with self.writing():
            self._db.execute(
                "INSERT OR IGNORE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, sha256, size, shown(reason), time.time_ns()),
            )

    def remove_refused(self, key: ChunkKey, sha256: str) -> None:
        """Take back why a chunk is in quarantine, when its bytes are removed from there."""
        where = "robot = ? AND session = ? AND seq = ? AND sha256 = ?"
        with self.writing():
            self._db.execute(f"DELETE FROM quarantine WHERE {where}", (*key, sha256))

    def mark_damaged(self, arrival: int, reason: str) -> None:
        """Note that the file of a row is lost or is not what was acknowledged."""
        with self.writing():
            self._db.execute(
                "INSERT OR REPLACE INTO damaged VALUES (?, ?, ?)",
                (arrival, shown(reason), time.time_ns()),
            )

    def mark_sound(self, arrival: int) -> None:
        """Note that the file of a row is good again."""
        with self.writing():
            self._db.execute("DELETE FROM damaged WHERE arrival = ?", (arrival,))

    def damaged(self) -> dict[int, str]:
        """List what is known of lost and damaged files: the reason by arrival."""
        return dict(self._fetch("SELECT arrival, reason FROM damaged ORDER BY arrival"))

    def overlapping(self, key: ChunkKey, first_step: int, steps: int) -> str | None:
        """Say which chunk of the session stands in the way of these steps; None where none does.

        Within a session the numbers of the steps grow with those of the chunks, so only the two
        neighbours of ``key`` can.
        """
        where = f"SELECT {COLUMNS} FROM sound WHERE robot = ? AND session = ?"
        before = self._rows(f"{where} AND seq < ? ORDER BY seq DESC LIMIT 1", tuple(key))
        after = self._rows(f"{where} AND seq > ? ORDER BY seq LIMIT 1", tuple(key))
        end = first_step + steps
        for row in before:
            if row.first_step + row.steps > first_step:
                break
        else:
            for row in after:
                if row.first_step < end:
                    break
            else:
                return None
        return (
            f"chunk {key.seq} claims the steps {first_step} to {end - 1}; chunk {row.seq} of this "
            f"session holds {row.first_step} to {row.first_step + row.steps - 1}"
        )

    def find(self, key: ChunkKey) -> ChunkRow | None:
        """Find the row of ``key``, if that chunk was acknowledged."""
        query = f"SELECT {COLUMNS} FROM sound WHERE robot = ? AND session = ? AND seq = ?"
        rows = self._rows(query, tuple(key))
        return rows[0] if rows else None

    def since(self, arrival: int, *, limit: int = -1) -> list[ChunkRow]:
        """List rows that arrived after ``arrival`` (0: all), oldest first; at most ``limit``."""
        query = f"SELECT {COLUMNS} FROM sound WHERE arrival > ? ORDER BY arrival LIMIT ?"
        return self._rows(query, (arrival, limit))

    def of_session(
        self, robot: str, session: str, *, first: int = 0, last: int = MAX_SEQ
    ) -> list[ChunkRow]:
        """List the rows of one session by sequence number, from ``first`` to ``last``."""
        where = "robot = ? AND session = ? AND seq BETWEEN ? AND ? ORDER BY seq"
        query = f"SELECT {COLUMNS} FROM sound WHERE {where}"
        return self._rows(query, (robot, session, first, last))

    def sessions(self) -> list[tuple[str, str]]:
        """List (robot, session) of everything stored, in order of first arrival."""
        return self._fetch(
            "SELECT robot, session FROM sound GROUP BY robot, session ORDER BY MIN(arrival)"
        )

    def refused(self) -> list[Refused]:
        """List every chunk in quarantine, oldest first."""
        return [Refused(*r) for r in self._fetch("SELECT * FROM quarantine ORDER BY received_ns")]

    def counts(self) -> dict[str, int]:
        """Count chunks, steps and bytes stored, in quarantine and damaged; the last arrival."""
        query = (
            "SELECT COUNT(*), COALESCE(SUM(steps), 0), COALESCE(SUM(bytes), 0),"
            " COALESCE(MAX(arrival), 0), (SELECT COUNT(*) FROM quarantine),"
            " (SELECT CAST(TOTAL(bytes) AS INTEGER) FROM quarantine),"
            " (SELECT COUNT(*) FROM damaged), (SELECT COUNT(*) FROM unsound) FROM sound"
        )
        names = (
            *("chunks", "steps", "bytes", "arrival", "quarantined", "quarantined_bytes"),
            *("damaged", "unsound"),
        )
        return dict(zip(names, self._fetch(query)[0], strict=True))

    def usage(self, robot: str) -> int:
        """Sum the bytes of the robot's chunks that are stored and were not evicted."""
        pruned = self.pruned_through()
        with self._read_lock:
            if self._usage is None or self._usage_pruned != pruned:
                query = "SELECT robot, SUM(bytes) FROM sound WHERE arrival > ? GROUP BY robot"
                self._usage, self._usage_pruned = dict(self._fetch(query, (pruned,))), pruned
            return self._usage.get(robot, 0)

    def kept(self) -> tuple[int, int]:
        """Sum the bytes of all chunks that were not evicted, and name the last arrival."""
        query = "SELECT COALESCE(SUM(bytes), 0), COALESCE(MAX(arrival), 0) FROM sound"
        (found,) = self._fetch(f"{query} WHERE arrival > ?", (self.pruned_through(),))
        return int(found[0]), int(found[1])

    def newest(self, count: int) -> list[ChunkRow]:
        """List the ``count`` rows that arrived last, the last one first."""
        return self._rows(f"SELECT {COLUMNS} FROM sound ORDER BY arrival DESC LIMIT ?", (count,))

    def quarantined(self, robot: str | None = None) -> tuple[int, int]:
        """Count rows and bytes in quarantine, of one robot or of all."""
        query = "SELECT COUNT(*), CAST(TOTAL(bytes) AS INTEGER) FROM quarantine"
        if robot is None:
            rows = self._fetch(query)
        else:
            rows = self._fetch(f"{query} WHERE robot = ?", (robot,))
        return int(rows[0][0]), int(rows[0][1])

    def pruned_through(self) -> int:
        """Return the last arrival whose file was evicted for room; 0 where none was."""
        query = (  # the newest chunk is never evicted: a number beyond it is none of ours
            "SELECT COALESCE(MAX(through), 0) FROM pruned WHERE typeof(through) = 'integer'"
            " AND through < (SELECT MAX(arrival) FROM sound)"
        )
        return int(self._fetch(query)[0][0])

    def mark_pruned(self, through: int) -> None:
        """Remember that the files up to arrival ``through`` are gone; their rows stay."""
        with self.writing():
            self._db.execute("DELETE FROM pruned WHERE through < ?", (through,))
            self._db.execute("INSERT INTO pruned VALUES (?)", (through,))

    def check(self) -> None:
        """Raise ``StoreError`` unless every page of the database is whole."""
        (found,) = self._fetch("PRAGMA integrity_check(1)")
        if found[0] != "ok":
            raise self._unusable(sqlite3.DatabaseError(str(found[0])[:200]))

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        with self._lock, self._read_lock:
            self._reader.close()
            self._db.close()
            if self._look is not None:
                self._look.close()

    def _rows(self, query: str, values: tuple[object, ...]) -> list[ChunkRow]:
        return [ChunkRow(*r) for r in self._fetch(query, values)]

    def _fetch(self, query: str, values: tuple[object, ...] = ()) -> list[tuple]:
        try:
            if self._writer == threading.get_ident():
                return self._db.execute(query, values).fetchall()
            with self._read_lock:
                if self._look is not None:
                    self._reader = self._db = self._look.connection(_ready_to_read)
                return self._reader.execute(query, values).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if any(words in str(error) for words in _PASSES):
                raise
            raise self._unusable(error) from error


def _with_view(db: sqlite3.Connection) -> sqlite3.Connection:
    """Prepare a connection; the view is its own, so that it is always this version's rule."""
    db.text_factory = _text
    db.execute(_VIEW)
    return db


def _ready_to_read(db: sqlite3.Connection, path: Path) -> None:
    """Prepare a connection that cannot write; what an old ledger lacks is empty for it."""
    if _version(db, path) != SCHEMA_VERSION:
        there = {name for (name,) in db.execute("SELECT name FROM main.sqlite_master")}
        db.execute("PRAGMA temp_store=MEMORY")
        for statement in _SCHEMA.split(";"):
            words = statement.split()
            if words and words[5] not in there:
                db.execute(" ".join(["CREATE TEMP TABLE", *words[5:]]))
    _with_view(db)


def _version(db: sqlite3.Connection, path: Path) -> int:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, 1, SCHEMA_VERSION):
        raise StoreError(
            f"{path}: expected ledger version {SCHEMA_VERSION} or older, got {version}; "
            "a newer program wrote it: upgrade this one"
        )
    return int(version)


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
