"""Writes files that are whole or absent, whatever happens to the power."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  #: how an OSError says that the disk is full
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK)
TMP_SUFFIX = ".tmp"  #: a file of this suffix was never finished


def sync_folder(folder: Path) -> None:
    """Make the names inside ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents, durably."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


@contextlib.contextmanager
def replaced_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file that appears at ``path`` in one piece when the block ends without an error.

    Args:
        path: what stands there is replaced; its folder is made where it is missing.
        durable: make file and name survive a power cut, which costs two syncs of the disk.

    Raises:
        OSError: where the disk is full or refuses; ``path`` is then as it was before.
    """
    make_folder(path.parent)
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}{TMP_SUFFIX}")
    try:
        with unfinished.open("xb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def write_durably(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` in one piece, so that it survives a power cut."""
    with replaced_file(path) as file:
        file.write(data)


def write_new(path: Path, data: bytes) -> bool:
    """Put ``data`` durably at ``path`` in one piece, unless something stands there.

    Returns:
        False, and nothing is replaced, where ``path`` exists.  Among several writers exactly one
        gets True; on file systems without links (FAT) two at the same instant may both get it,
        and the later one's bytes stay.

    Raises:
        OSError: where the disk is full or refuses.
    """
    make_folder(path.parent)
    unfinished = path.with_name(f"{path.name}.{uuid4().hex[:8]}{TMP_SUFFIX}")
    try:
        if path.exists():
            return False
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(unfinished, path)  # a rename would replace what stands there
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            os.rename(unfinished, path)
        return True
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        sync_folder(path.parent)  # who is told that it exists may rely on it too


def try_lock(path: Path) -> int | None:
    """Lock the file at ``path`` for this process; None where another process holds the lock.

    The system releases it however the process ends; ``os.close`` releases it before.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def write_atomically(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` in one piece, which a power cut may undo."""
    with replaced_file(path, durable=False) as file:
        file.write(data)


def remove_unfinished(folder: Path, name: str) -> None:
    """Remove what a killed process left of files in ``folder`` whose name fits the glob ``name``.

    Only for who alone writes them; what cannot be removed stays.
    """
    with contextlib.suppress(OSError):
        for unfinished in folder.glob(f"{name}.*{TMP_SUFFIX}"):
            unfinished.unlink()


def json_text(value: Any, **options: Any) -> str:
    """Write ``value`` as JSON, with null in place of NaN and infinity, which JSON does not know.

    Args:
        value: dictionaries, lists and what JSON knows; floats of NumPy too.
        options: of ``json.dumps``, such as ``indent``.
    """
    return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    """``value`` with None in place of every float in it that is not finite."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k) if isinstance(k, float) else k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in ``path``; empty where the file is missing or holds none."""
    try:
        return json_object(path.read_bytes())
    except OSError:
        return {}


def json_object(text: bytes) -> dict[str, Any]:
    """Parse the JSON object in ``text``; empty where it holds none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def siblings(path: Path) -> list[str]:
    """List the names beside ``path``, for a message about one that does not exist."""
    return [other.name for other in path.parent.glob("*")]
