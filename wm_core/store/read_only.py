"""Opens a SQLite database so that neither it nor its folder changes.

A database with a write-ahead log has three files, and even who only reads makes the second and
third where they are missing, and enters itself in the third.  So one without a log is read as it
stands; one that another connection has open is read with its log; and one whose log was left by
a killed process, or that lies in a folder that cannot be written to, is copied first.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from wm_core.contract.errors import StoreError

_COPIES = 5  #: tries to copy a database while somebody whose locks are not seen writes to it
_LOCKS = Path("/proc/locks")
_BUSY_S = 30.0  # longest wait for another process's commit
Prepare = Callable[[sqlite3.Connection, Path], None]
_LOG, _SHARED = "-wal", "-shm"


class ReadOnly:
    """Keeps a connection that sees what other processes commit, and writes nothing.

    Args:
        path: the database file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._read: object = None  # how the files stood that were read as they stood, or copied
        self._copy: tempfile.TemporaryDirectory[str] | None = None

    def connection(self, prepare: Prepare) -> sqlite3.Connection:
        """Give the connection, made anew where somebody has begun to write since.

        Args:
            prepare: called with each new connection and the path of the database.

        Raises:
            StoreError: where the database is not there.
        """
        if self._db is not None and self._read in (None, self._state()):
            return self._db
        self.close()
        if not self._path.is_file():
            raise StoreError(f"{self._path} does not exist; nothing is made by who only reads")
        before, self._read = self._read, self._state()
        # What changed between two looks is written to, though another container hides its locks.
        written = before is not None and before != self._read
        if not self._has_log():
            self._db = self._open(self._path, "mode=ro&immutable=1", prepare)
        elif self._beside(_SHARED).exists() and (written or _is_open(self._beside(_SHARED))):
            try:
                self._db = self._open(self._path, "mode=ro", prepare)
                self._read = None  # this connection sees every later commit by itself
            except sqlite3.OperationalError:  # a folder that cannot be written to
                self._db = self._open(self._copied(), "mode=rw", prepare)
        else:
            self._db = self._open(self._copied(), "mode=rw", prepare)
        return self._db

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._copy is not None:
            self._copy.cleanup()
            self._copy = None

    def _open(self, path: Path, how: str, prepare: Prepare) -> sqlite3.Connection:
        db = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            prepare(db, self._path)
            db.execute("PRAGMA query_only=1")
        except BaseException:
            db.close()
            raise
        return db

    def _state(self) -> object:
        """Give what changes with every commit: the log is folded away when its writer ends."""
        found = []
        for path in (self._path, self._beside(_LOG)):
            try:
                about = path.stat()
                found.append((about.st_ino, about.st_size, about.st_mtime_ns))
            except OSError:
                found.append((0, 0, 0))
        return found

    def _has_log(self) -> bool:
        try:
            return self._beside(_LOG).stat().st_size > 0
        except OSError:
            return False

    def _beside(self, suffix: str) -> Path:
        return self._path.with_name(self._path.name + suffix)

    def _copied(self) -> Path:
        """Copy the database and its log, as they stand between two commits."""
        self._copy = tempfile.TemporaryDirectory(prefix="ledger-")
        copy = Path(self._copy.name) / "ledger.sqlite"
        for _ in range(_COPIES):
            self._read = self._state()
            shutil.copyfile(self._path, copy)
            with contextlib.suppress(FileNotFoundError):  # folded away meanwhile
                shutil.copyfile(self._beside(_LOG), copy.with_name(copy.name + _LOG))
            if self._state() == self._read:
                break
        return copy


def _is_open(shared: Path) -> bool:
    """Whether a connection, of this process or another, holds the third file of a database.

    It is looked up in the system's list of locks: opening and closing the file here would take
    the locks away that this process has on it.  Where there is no such list, it counts as held.
    """
    try:
        inode, lines = shared.stat().st_ino, _LOCKS.read_text().splitlines()
    except OSError:
        return True
    return any(word.endswith(f":{inode}") for line in lines for word in line.split())
