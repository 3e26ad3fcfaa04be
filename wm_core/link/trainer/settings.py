"""Settings of the trainer's service, and the names of what lies in its root folder."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from wm_core.contract.frozen import Frozen, ranged
from wm_core.store.ingest import MAX_CHUNK_BYTES

STORE, POLICIES, SERVICE_FILE = "store", "policies", "service.json"


class ServeSettings(Frozen):
    """Says what the service keeps, where it listens and what it takes in."""

    root: Path = Field(description="Run folder; receives the folders store and policies.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0: all, with tokens.")
    port: int = ranged(8765, 0, 65535, "TCP port to listen on; 0 picks a free one.")
    tokens: Path | None = Field(
        None, description="File of lines `robot sha256(token)`; None serves this machine only."
    )
    max_chunk_bytes: int = Field(MAX_CHUNK_BYTES, gt=0, description="Bytes of the largest chunk.")
    max_uploads: int = Field(8, gt=0, description="Uploads in memory at once; more must retry.")
    upload_s: float = Field(60.0, gt=0, description="Deadline in seconds for one upload.")
    min_free_bytes: int = Field(200_000_000, ge=0, description="Bytes of the disk to keep free.")
