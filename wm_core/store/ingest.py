"""Takes one chunk into the store: for local collection, and for whoever has a single chunk.

``store.intake`` takes in chunks of many senders in groups; both stand on the same examination and
the same commit.
"""

from __future__ import annotations

from pathlib import Path

from wm_core.contract.spec import Spec
from wm_core.format.chunk import ChunkKey
from wm_core.store.commit import commit_group
from wm_core.store.examine import MAX_CHUNK_BYTES, examine_chunk
from wm_core.store.index import store_index
from wm_core.store.ledger import Ledger
from wm_core.store.verdict import Verdict


def ingest(
    root: Path,
    ledger: Ledger,
    key: ChunkKey,
    data: bytes,
    sha256: str | None = None,
    *,
    max_bytes: int = MAX_CHUNK_BYTES,
    min_free_bytes: int = 0,
    spec: Spec | None = None,
) -> Verdict:
    """Store a chunk once, however often it comes.

    Args:
        root: the store's folder; the file becomes ``root/robot/session/seq.mcap``.
        ledger: of that store.
        key: whose chunk and which one.
        data: the chunk's file as it was sent.
        sha256: what the sender says its hash is, 64 hexadecimal digits; None for own bytes.
        max_bytes: a larger chunk is refused without being looked at.
        min_free_bytes: leave at least this much room on the disk.
        spec: refuse chunks that were recorded with another one; None takes any.

    Returns:
        ``stored`` or ``known`` once file and row are durable; else why not.  Nothing that was
        stored before is ever touched, unless its file is damaged and these are its bytes.
    """
    chunk = examine_chunk(root, ledger, key, data, sha256, max_bytes=max_bytes, spec=spec)
    (verdict,) = commit_group(root, ledger, [chunk], min_free_bytes=min_free_bytes)
    if verdict.ok:
        store_index(root, chunk)
    return verdict
