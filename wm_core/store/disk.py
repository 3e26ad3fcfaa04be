"""Says in one line that a disk is full, read-only or gone, after having tried a few times."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from wm_core.contract.errors import WmError, shown
from wm_core.contract.files import NO_ROOM

log = logging.getLogger(__name__)

PAUSES_S = (0.2, 1.0)  #: before the second and the third try of what is essential
#: sqlite3's words for a disk that is full, read-only or gone
_SQLITE = ("full", "disk I/O", "unable to open", "readonly")


class DiskFailed(WmError):
    """Reports a file of a run that could not be written, with what to do."""


def disk_error_of(error: BaseException | None) -> OSError | None:
    """Find the refusal of the disk behind ``error``; None where it has another cause.

    Torch reports a failed write as its own error, raised while it handled the disk's.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error
        if isinstance(error, sqlite3.OperationalError) and any(w in str(error) for w in _SQLITE):
            full = "full" in str(error)
            return OSError(errno.ENOSPC if full else errno.EIO, str(error))
        error = error.__cause__ or error.__context__
    return None


def refusal(error: OSError, path: Path, *, needed: int | None = None, less: str = "") -> str:
    """Say in one line that ``path`` was not written, why, and what to do.

    Args:
        error: of the system.
        path: the file or folder that was to be written.
        needed: bytes that it would have taken; None where that is unknown.
        less: options that keep less on the disk.
    """
    why = error.strerror or str(error) or type(error).__name__
    size = "" if needed is None else f": {size_text(needed)} needed"
    free = free_bytes(path)
    if free is not None:
        size += f"{',' if size else ':'} {size_text(free)} free"
    if error.errno in NO_ROOM:
        cure = f"make room{f' or keep less ({less})' if less else ''}, then go on with --resume"
    elif error.errno == errno.ENOENT:
        cure = "the folder is not there any more: put it back, then go on with --resume"
    else:
        cure = "see to it that the folder can be written, then go on with --resume"
    return shown(f"{path} could not be written ({why}){size}; {cure}")


def size_text(count: int) -> str:
    """Write ``count`` bytes in the unit that people read, as in "18.2 MB"."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} bytes"


def free_bytes(path: Path) -> int | None:
    """Tell how many bytes are free where ``path`` is or would be; None where nobody can say."""
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def insist(write: Callable[[], None], path: Path, *, needed: int | None, less: str) -> None:
    """Call ``write`` until the disk takes it, three times at most.

    Raises:
        DiskFailed: where it never does; other errors pass.
    """
    for pause_s in (*PAUSES_S, None):
        try:
            write()
            return
        except Exception as error:
            refused = disk_error_of(error)
            if refused is None:
                raise
            why = refusal(refused, path, needed=needed, less=less)
            if pause_s is None:
                raise DiskFailed(why) from error
            log.info("%s; it is tried again", why)
            time.sleep(pause_s)


@contextlib.contextmanager
def disk_named(run: Path) -> Iterator[None]:
    """Turn what the disk refuses within the block, wherever it does, into one line.

    Raises:
        DiskFailed: for an error of the disk that names a file of ``run``, or no room anywhere.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        refused = disk_error_of(error)
        named = getattr(refused, "filename", None)
        path = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else run
        ours = path.absolute().is_relative_to(run.absolute())
        if refused is None or not (ours or refused.errno in NO_ROOM):
            raise
        raise DiskFailed(refusal(refused, path)) from error
