"""Keeps the store within its size: the chunks that arrived first are evicted first.

Several learners may read one store, and each may evict from it: the smallest bound decides.  A
reader whose chunk is evicted meanwhile leaves it out and goes on.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from wm_core.format.chunk import chunk_path
from wm_core.store.index import SIDECARS
from wm_core.store.ledger import Ledger

log = logging.getLogger(__name__)

_ROWS = 512  # that are asked of the ledger at once
_LOOKS = 8  # at the folder, until what is left fits
_BLOCK = 512  # bytes, the unit of ``st_blocks``


def prune(root: Path, ledger: Ledger, max_bytes: int) -> int:
    """Delete the oldest chunks until the rest fits ``max_bytes``; the newest always stays.

    Their rows stay in the ledger, marked, so that they count as evicted and never as lost.
    A kill in between leaves files that the service removes when it starts.

    Returns:
        How many chunks were evicted.
    """
    with ledger.writing():  # one at a time: another learner may evict, too
        begin = through = ledger.pruned_through()
        left, newest = ledger.kept()
        while left > max_bytes and through < newest:
            rows = ledger.since(through, limit=_ROWS)
            if not rows:
                break
            for row in rows:
                if left <= max_bytes or row.arrival >= newest:
                    break
                left -= row.bytes
                through = row.arrival
            else:
                continue
            break
        if through > begin:
            ledger.mark_pruned(through)
    evicted = 0
    while begin < through:
        for row in ledger.since(begin, limit=_ROWS):
            if row.arrival > through:
                return evicted
            begin = row.arrival
            evicted += 1
            # the chunk last: one that a kill leaves leads the next start to both
            for kind in (*SIDECARS, "mcap"):
                path = chunk_path(root, row.key).with_suffix(f".{kind}")
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    log.warning("%s could not be evicted: %s", path, error)
    return evicted


def keep_within(root: Path, ledger: Ledger, max_bytes: int) -> int:
    """Prune so that all that lies in the store's folder fits ``max_bytes`` of the disk.

    Counted is what the disk gives up for it, as ``du`` does: chunks, indices, quarantine, ledger
    and its log, old ledgers, unfinished files.  At least half of it stays for the chunks.

    Returns:
        How many chunks were evicted.
    """
    used = used_by(root)
    if used.all <= max_bytes:
        return 0
    around = min(used.around, max_bytes // 2)  # what cannot be evicted never evicts everything
    kept = ledger.kept()[0]
    share = used.chunks / kept if kept else 1.0  # of the disk, for a byte of a chunk
    left, evicted = used.chunks, 0
    for _ in range(_LOOKS):  # chunks differ in what lies beside them
        goal = max_bytes - around
        if left <= goal:
            break
        now = prune(root, ledger, max(0, int(ledger.kept()[0] - (left - goal) / share)))
        evicted += now
        left = used_by(root).chunks
        if not now:
            break
    return evicted


class Used(NamedTuple):
    """Sums what a store takes of the disk, in bytes."""

    chunks: int  #: with their indices
    around: int  #: everything else in the folder

    @property
    def all(self) -> int:
        return self.chunks + self.around


def used_by(root: Path) -> Used:
    """Measure what each file below ``root`` takes of the disk."""
    chunks = around = 0
    for folder, _, names in os.walk(root):
        in_session = len(Path(folder).relative_to(root).parts) == 2
        for name in names:
            size = _taken(os.path.join(folder, name))
            kind = name.partition(".")[2]
            if in_session and kind in ("mcap", *SIDECARS):
                chunks += size
            else:
                around += size
    return Used(chunks, around)


def _taken(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * _BLOCK
    except OSError:  # evicted meanwhile
        return 0
