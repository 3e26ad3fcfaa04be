"""Pulls chunks from an object store into a learner's own store, each once.

Every node of a learner has its own copy.  What a session has is listed from its first missing
number on, so that a look costs one short listing a session, and chunks may arrive in any order.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import ChunkKey
from wm_core.store.examine import MAX_CHUNK_BYTES
from wm_core.store.ingest import ingest
from wm_core.store.ledger import Ledger
from wm_core.store.objects import PREFIX, Objects, object_name, session_folder

log = logging.getLogger(__name__)


class Pulled(NamedTuple):
    """Counts what one look brought."""

    stored: int = 0  #: chunks that were new
    known: int = 0  #: chunks that another way had brought already
    refused: int = 0  #: chunks that are damaged or contradict what is stored: in quarantine
    failed: int = 0  #: chunks for which there was no room, or no time; tried again


class Pull:
    """Copies what is new in an object store.

    Args:
        objects: the object store that services fill.
        root: the local store's folder.
        ledger: of that store.
        min_free_bytes: leave at least this much room on the disk.
    """

    def __init__(
        self, objects: Objects, root: Path, ledger: Ledger, *, min_free_bytes: int = 0
    ) -> None:
        self._objects, self._root, self._ledger = objects, root, ledger
        self._min_free_bytes = min_free_bytes
        self._have: dict[tuple[str, str], set[int]] = {}
        for row in ledger.since(0):
            self._have.setdefault((row.robot, row.session), set()).add(row.seq)

    def once(self, on_chunk: Callable[[ChunkKey], None] | None = None) -> Pulled:
        """Copy everything that is new; ``on_chunk`` is told of each chunk before it is read.

        Raises:
            StoreError: where the object store cannot be reached.
        """
        counts = dict.fromkeys(Pulled._fields, 0)
        for key in self._new():
            if on_chunk is not None:
                on_chunk(key)
            data = self._objects.get(object_name(key))
            if data is None:  # removed meanwhile
                continue
            sha256 = hashlib.sha256(data).hexdigest()
            verdict = ingest(
                self._root,
                self._ledger,
                key,
                data,
                sha256,
                max_bytes=MAX_CHUNK_BYTES,
                min_free_bytes=self._min_free_bytes,
            )
            if verdict.kind in ("no_room", "busy"):
                log.warning("chunk %s could not be copied: %s", tuple(key), verdict.reason)
                counts["failed"] += 1
                continue
            self._have.setdefault((key.robot, key.session), set()).add(key.seq)
            counts[verdict.kind if verdict.ok else "refused"] += 1
        return Pulled(**counts)

    def _new(self) -> Iterator[ChunkKey]:
        """Name the chunks that are not here, by session and number."""
        for robot_folder in self._objects.folders(PREFIX):
            for folder in self._objects.folders(robot_folder):
                robot, session = folder.split("/")[1:]
                if _key(robot, session, 0) is None:
                    continue
                have = self._have.get((robot, session), set())
                missing = next(n for n in range(len(have) + 1) if n not in have)
                after = f"{session_folder(robot, session)}/{missing - 1:08d}.mcap"
                for name in self._objects.names(folder, after if missing else ""):
                    stem, dot, suffix = name.rpartition("/")[2].partition(".")
                    if (dot, suffix) != (".", "mcap") or not stem.isdecimal():
                        continue
                    key = _key(robot, session, int(stem))
                    if key is not None and key.seq not in have:
                        yield key


def _key(robot: str, session: str, seq: int) -> ChunkKey | None:
    """Make a chunk's key; None where the names can be no chunk's."""
    try:
        return ChunkKey(robot, session, seq).check()
    except ChunkRefused:
        return None
