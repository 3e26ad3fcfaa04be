"""Keeps the store within its size: the chunks that arrived first are evicted first."""

from __future__ import annotations

from pathlib import Path

from wm_core.format.chunk import chunk_path
from wm_core.store.index import SIDECARS
from wm_core.store.ledger import Ledger


def prune(root: Path, ledger: Ledger, max_bytes: int) -> int:
    """Delete the oldest chunks until the rest fits ``max_bytes``; the newest always stays.

    Their rows stay in the ledger, marked, so that they count as evicted and never as lost.
    A kill in between leaves files that the service removes when it starts.

    Returns:
        How many chunks were evicted.
    """
    rows = ledger.since(ledger.pruned_through())
    left = sum(row.bytes for row in rows)
    evicted = []
    for row in rows[:-1]:
        if left <= max_bytes:
            break
        left -= row.bytes
        evicted.append(row)
    if evicted:
        ledger.mark_pruned(evicted[-1].arrival)
    for row in evicted:
        # the chunk last: one that a kill leaves leads the next start to both
        for kind in (*SIDECARS, "mcap"):
            chunk_path(root, row.key).with_suffix(f".{kind}").unlink(missing_ok=True)
    return len(evicted)
