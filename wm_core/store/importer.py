"""Takes a folder of chunk files into the store, each once: a spool on a USB stick, a copy.

A robot that never meets its trainer keeps its chunks in its spool; someone carries or copies the
folder.  It is read only, may be offered as often as one likes, and is checked like what comes
over the network.  Bytes that are stored already and were damaged since are replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from wm_core.contract.errors import ChunkRefused, StoreError
from wm_core.format.chunk import ChunkKey, check_chunk
from wm_core.store.commit import REPLACED
from wm_core.store.examine import MAX_CHUNK_BYTES
from wm_core.store.intake import MAX_GROUP, Intake
from wm_core.store.verdict import Verdict

_WAITING = 2 * MAX_GROUP  # offers without an answer; bounds what is in memory


@dataclass
class Imported:
    """Counts what became of the files of a folder."""

    new: int = 0
    known: int = 0  #: stored already, bit for bit
    replaced: int = 0  #: stored already, damaged since, and whole again
    refused: list[tuple[Path, str]] = field(default_factory=list)  #: with the reason
    failed: list[tuple[Path, str]] = field(default_factory=list)  #: for want of room: try again


def import_chunks(
    source: Path,
    intake: Intake,
    *,
    max_bytes: int = MAX_CHUNK_BYTES,
    on_file: Callable[[Path], object] = lambda path: None,
) -> Imported:
    """Offer every ``*.mcap`` file below ``source`` to ``intake``.

    Args:
        source: a folder; a spool, a store, or anything that holds chunk files at any depth.
        intake: of the store.
        max_bytes: a larger file is refused unread.
        on_file: called before each file is read.

    Raises:
        StoreError: where ``source`` is no folder that can be read.
    """
    if not source.is_dir() or not os.access(source, os.R_OK | os.X_OK):
        raise StoreError(f"{source}: expected a folder with chunk files that can be read")
    found = Imported()
    waiting: deque[tuple[Path, Future[Verdict]]] = deque()
    for path in chunk_files(source):
        on_file(path)
        try:
            key, data = _read(path, max_bytes)
        except (OSError, ChunkRefused) as error:
            found.refused.append((path, str(error)))
            continue
        offer = intake.offer(key, data, hashlib.sha256(data).hexdigest())
        waiting.append((path, offer))
        while len(waiting) >= _WAITING:
            _note(found, *waiting.popleft())
    for path, offer in waiting:
        _note(found, path, offer)
    return found


def chunk_files(folder: Path) -> Iterator[Path]:
    """List the chunk files below ``folder``, by name, without following links to folders."""
    for where, folders, files in os.walk(folder, followlinks=False):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".mcap"):
                yield Path(where) / name


def _read(path: Path, max_bytes: int) -> tuple[ChunkKey, bytes]:
    """Read a file and the name of the chunk in it."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > max_bytes:
        raise ChunkRefused(f"expected a plain file of at most {max_bytes} bytes")
    data = path.read_bytes()
    robot, session, _ = ("", "", *path.resolve().parts)[-3:]  # the folder may be given as "."
    with contextlib.suppress(ValueError, ChunkRefused):  # most lie where their names say
        return ChunkKey(robot, session, int(path.stem)).check(), data
    try:
        return check_chunk(data, None, max_bytes=max_bytes).meta.key, data
    except ChunkRefused:
        raise
    except Exception as error:  # whatever it is, the other files are taken
        raise ChunkRefused(f"its reader failed: {error}") from error


def _note(found: Imported, path: Path, offer: Future[Verdict]) -> None:
    verdict = offer.result()
    if verdict.kind == "stored":
        found.new += 1
    elif verdict.kind == "known" and verdict.reason == REPLACED:
        found.replaced += 1
    elif verdict.kind == "known":
        found.known += 1
    elif verdict.kind in ("no_room", "busy"):
        found.failed.append((path, verdict.reason))
    else:
        found.refused.append((path, verdict.reason))
