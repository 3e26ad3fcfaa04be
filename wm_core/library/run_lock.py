"""Only one training uses a run folder at a time, and a refused start leaves the folder as it was.

The lock is that of the system (``flock``) on ``RUN/run.lock``: it ends with its process, however
that ends.  The file holds the number of the process and is gone after a training that ended well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from wm_core.contract.errors import SettingsError
from wm_core.contract.files import try_lock

LOCK_NAME = "run.lock"
_TRIES, _PAUSE_S = 20, 0.05  #: a look by ``is_running`` holds the lock for an instant
_held: set[int] = set()  # a child that is forked must not keep its parent's lock


class RunLock:
    """Holds the run folder for this process; a context manager.

    Where the block ends with an error, folders that the lock had to make are removed again, as
    far as nothing was put into them.

    Args:
        run: the run folder, which is made where it is missing.

    Raises:
        SettingsError: on entering, where another training holds it, naming its process, and
            where the folder cannot be made.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._path = Path(run), Path(run) / LOCK_NAME
        self._made: list[Path] = []
        self._before: bytes | None = None
        self._handle = -1

    def __enter__(self) -> RunLock:
        try:
            self._make_folders()
            with contextlib.suppress(FileNotFoundError):
                self._before = self._path.read_bytes()
            self._handle = self._locked()
        except OSError as error:
            self._remove_folders()
            raise SettingsError(
                f"--run {self._run}: expected a folder that can be written to, got: "
                f"{error.strerror}; name another --run or change its rights"
            ) from error
        except SettingsError:
            self._remove_folders()
            raise
        _held.add(self._handle)
        with contextlib.suppress(OSError):  # a full disk: the lock holds, and names no process
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):
            if kind is None or self._before is None:
                self._path.unlink()
            else:  # left by a kill: a refused start changes nothing
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, self._before, 0)
        _held.discard(self._handle)
        os.close(self._handle)
        if kind is not None:
            self._remove_folders()

    def _make_folders(self) -> None:
        missing, folder = [], self._run
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for new in reversed(missing):
            with contextlib.suppress(FileExistsError):
                new.mkdir()
                self._made.append(new)

    def _remove_folders(self) -> None:
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _locked(self) -> int:
        """Lock the file of that name, which its last holder may have removed meanwhile."""
        for _ in range(_TRIES):
            handle = try_lock(self._path)
            if handle is not None:
                with contextlib.suppress(FileNotFoundError):
                    if os.fstat(handle).st_ino == os.stat(self._path).st_ino:
                        return handle
                os.close(handle)
            time.sleep(_PAUSE_S)
        pid = _pid_in(self._path)
        who = f"process {pid}" if pid else "another process"
        raise SettingsError(
            f"{self._run} is being trained by {who} already; wait for it or stop it"
            f"{f' (kill {pid})' if pid else ''}, or name another --run"
        )


def is_running(run: Path) -> int | None:
    """Tell which process trains in ``run``; None where none does.  Nothing is made or changed.

    Returns:
        The number of the process; 0 where it has begun just now and has not said its number.
    """
    path = Path(run) / LOCK_NAME
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _pid_in(path)
    else:
        return None
    finally:
        os.close(handle)


def _pid_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _forget_in_child() -> None:
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_forget_in_child)
