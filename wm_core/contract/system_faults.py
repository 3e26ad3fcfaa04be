"""Says in one line what the operating system, a disk or a database refused.

Such an error is of the user's machine and not of this project: which file it was about, and what
can be done, is all that there is to say.
"""

from __future__ import annotations

import errno
import re
import sqlite3

from wm_core.contract.errors import shown

_ROOM = "make room on the disk, or choose another place"
_FILES = "let the process open more files: ulimit -n"
_UNFINISHED = re.compile(r"\.[0-9a-f]{8}\.tmp$")  # of a file that is written beside its place
#: what to do about a refusal that names a file
_CURES = {
    errno.EACCES: "change its rights, or choose another place",
    errno.EPERM: "change its rights, or choose another place",
    errno.EROFS: "the disk is read-only: choose another place",
    errno.ENOTDIR: "expected a folder, but a part of the path is a file",
    errno.EISDIR: "expected a file, got a folder",
    errno.EEXIST: "something else stands there: choose another name",
    errno.ENOENT: "see whether it is spelt right, and whether something can be made there",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle",
    errno.EBUSY: "another process uses it",
    errno.ENOTEMPTY: "it is not empty: choose another name",
}
#: what to do about one that may name none
_CURES_ANYWHERE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EIO: "look at the disk",
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
}
#: words of SQLite, and what to do about them
_OF_SQLITE = {
    "locked": "wait for the process that writes to it, or stop it",
    "readonly": "change its rights, or copy it to another place",
    "unable to open": "look at the rights of its folder",
    "full": _ROOM,
    "disk I/O": "look at the disk",
}


def system_fault(error: Exception) -> str | None:
    """Say what the machine refused, and what to do; None for an error of another kind.

    Args:
        error: that came out of reading or writing files or a database.
    """
    if isinstance(error, sqlite3.OperationalError):
        cure = next((cure for word, cure in _OF_SQLITE.items() if word in str(error)), None)
        return None if cure is None else shown(f"a database refused ({error}); {cure}")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where = error.filename2 or error.filename
    if isinstance(where, str):
        where = _UNFINISHED.sub("", where)
    cure = _CURES_ANYWHERE.get(error.errno)
    if cure is None and where is not None:
        cure = _CURES.get(error.errno)
    if cure is None:
        return None
    place = f"{where}: " if isinstance(where, str | bytes) or hasattr(where, "__fspath__") else ""
    return shown(f"{place}{error.strerror}; {cure}")
