"""Keeps refused chunks for a person to look at, within bounds that one robot cannot use up.

The files lie in ``quarantine.d`` of the store; the ledger's table says why.  Neither bytes nor
rows nor reasons grow beyond their bounds; what is beyond them is counted in the log alone.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from wm_core.contract.files import write_atomically
from wm_core.format.chunk import ChunkKey
from wm_core.store.examine import Examined
from wm_core.store.ledger import Ledger
from wm_core.store.verdict import Verdict

log = logging.getLogger(__name__)

QUARANTINE = "quarantine.d"  # no robot's name can hold a dot
MAX_QUARANTINE_BYTES = 1 << 30
MAX_ROBOT_BYTES = MAX_QUARANTINE_BYTES // 8
MAX_QUARANTINE_ROWS, MAX_ROBOT_ROWS = 20_000, 2_000


def quarantine(
    root: Path,
    ledger: Ledger,
    refused: Sequence[tuple[Examined, Verdict]],
    *,
    min_free_bytes: int = 0,
) -> None:
    """Keep refused bytes and why they were refused, as far as the bounds go.

    A disk or ledger that refuses is logged: the verdicts stand anyway.
    """
    if not refused:
        return
    for chunk, verdict in refused:
        log.warning("chunk %s refused: %s", tuple(chunk.key), verdict.reason)
    try:
        with ledger.writing():
            for chunk, verdict in refused:
                _keep(root, ledger, chunk, verdict, min_free_bytes)
    except (OSError, sqlite3.Error) as error:
        log.warning("%d refused chunks could not be kept: %s", len(refused), error)


def quarantine_path(root: Path, key: ChunkKey, sha256: str) -> Path:
    """Locate the refused bytes of ``key`` whose hash begins with that of ``sha256``."""
    name = f"{key.seq:08d}.{sha256[:16]}.refused"
    return root / QUARANTINE / key.robot / key.session / name


def _keep(
    root: Path, ledger: Ledger, chunk: Examined, verdict: Verdict, min_free_bytes: int
) -> None:
    key, size = chunk.key, len(chunk.data)
    rows, taken = ledger.quarantined()
    robot_rows, robot_taken = ledger.quarantined(key.robot)
    if rows >= MAX_QUARANTINE_ROWS or robot_rows >= MAX_ROBOT_ROWS:
        log.warning("quarantine is full of chunks of %s: nothing more is noted", key.robot)
        return
    path = quarantine_path(root, key, chunk.sha256)
    if path.exists():
        ledger.add_refused(key, chunk.sha256, size, verdict.reason)
        return
    fits = taken + size <= MAX_QUARANTINE_BYTES and robot_taken + size <= MAX_ROBOT_BYTES
    try:
        if fits and shutil.disk_usage(root).free - size >= min_free_bytes:
            write_atomically(path, chunk.data)
        else:
            size = 0
    except OSError as error:
        log.warning("refused chunk %s could not be kept: %s", tuple(key), error)
        size = 0
    ledger.add_refused(key, chunk.sha256, size, verdict.reason)
