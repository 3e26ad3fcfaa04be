"""Keeps the store within its size: the chunks that arrived first are evicted first.

Several learners may read one store, and each may evict from it: the smallest bound decides.  A
reader whose chunk is evicted meanwhile leaves it out and goes on.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from wm_core.format.chunk import chunk_path
from wm_core.store.index import SIDECARS, index_path
from wm_core.store.ledger import Ledger

log = logging.getLogger(__name__)

_ROWS = 512  # that are asked of the ledger at once
_SAMPLED = 32  # newest chunks whose indices are measured


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
    """Prune so that all of the store fits ``max_bytes``: chunks, indices, quarantine and ledger.

    At least half of it stays for the chunks.  The size of the indices is estimated from those of
    the newest chunks.

    Returns:
        How many chunks were evicted.
    """
    around = ledger.quarantined()[1] + sum(_size(ledger.path, p) for p in ("", "-wal", "-shm"))
    around = min(around, max_bytes // 2)  # what cannot be evicted never evicts everything
    kept = ledger.kept()[0]
    rows = ledger.newest(_SAMPLED)
    share = sum(_size(index_path(root, row.key)) for row in rows) / max(
        1, sum(row.bytes for row in rows)
    )
    if kept * (1 + share) + around <= max_bytes:
        return 0
    return prune(root, ledger, max(0, int((max_bytes - around) / (1 + share))))


def _size(path: Path, suffix: str = "") -> int:
    with contextlib.suppress(OSError):
        return path.with_name(path.name + suffix).lstat().st_size
    return 0
