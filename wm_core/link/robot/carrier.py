"""Carries chunks to the trainer: over HTTP, or into a folder such as that of a USB stick."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from wm_core.contract.errors import SettingsError
from wm_core.contract.files import NO_ROOM, write_new
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.link.robot.client import TrainerClient
from wm_core.link.robot.verdict import FAILED, KNOWN, NO_ROOM_LEFT, STORED, Answer, read_answer

CHUNKS = "chunks"  #: folder within a directory that stands for a trainer


class Carrier(Protocol):
    """Hands chunks over, one at a time; ``abort`` comes from another thread."""

    @property
    def sent_bytes(self) -> int:
        """Count what was sent of the last chunk; 0 where no connection came about."""
        ...

    def put(self, key: ChunkKey, data: bytes, sha256: str) -> Answer:
        """Hand one chunk over; raises ``OSError`` where no answer came."""
        ...

    def abort(self) -> None:
        """End a ``put`` that is under way, and any later one."""
        ...

    def close(self) -> None:
        """Release what is open."""
        ...


class HttpCarrier:
    """Puts chunks to a service such as ``wm serve``."""

    def __init__(self, client: TrainerClient) -> None:
        self._client = client

    @property
    def sent_bytes(self) -> int:
        return self._client.sent_bytes

    def put(self, key: ChunkKey, data: bytes, sha256: str) -> Answer:
        reply = self._client.request(
            "PUT",
            f"/v1/chunks/{key.robot}/{key.session}/{key.seq}",
            body=data,
            headers={"X-Content-SHA256": sha256, "Content-Type": "application/x-mcap"},
        )
        return read_answer(reply, key, sha256)

    def abort(self) -> None:
        self._client.abort()

    def close(self) -> None:
        self._client.close()


class FolderCarrier:
    """Copies chunks durably to ``<folder>/chunks/<robot>/<session>/<seq>.mcap``, for an import.

    The folder itself is never made: without the stick the mount point is an empty folder of the
    robot's own disk.

    Args:
        folder: must exist whenever a chunk is copied.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.sent_bytes = folder, 0

    def put(self, key: ChunkKey, data: bytes, sha256: str) -> Answer:
        self.sent_bytes = 0
        if not self._folder.is_dir():
            raise FileNotFoundError(
                f"trainer_url: {self._folder} does not exist; mount the stick and make the folder"
            )
        path = chunk_path(self._folder / CHUNKS, key)
        try:
            is_new = write_new(path, data)
        except OSError as error:
            if error.errno in NO_ROOM:
                return Answer(NO_ROOM_LEFT, f"{self._folder} is full", wait_s=10.0)
            raise
        self.sent_bytes = len(data)
        if _sha256_on_disk(path) == sha256:
            return Answer(STORED if is_new else KNOWN, "")
        if is_new:  # the medium is broken: leave no copy that looks like a good one
            path.unlink(missing_ok=True)
            raise OSError(f"{path} reads back with other bytes than were written; try another")
        return Answer(FAILED, f"other bytes lie at {path}; move them away")

    def abort(self) -> None:
        """Do nothing: a copy ends by itself."""

    def close(self) -> None:
        """Do nothing: nothing stays open."""


def folder_trainer(url: str) -> Path | None:
    """Give the folder of a ``file:`` URL; None for another kind.

    Raises:
        SettingsError: for a ``file:`` URL of another machine, or without an absolute path.
    """
    parts = urlsplit(url)
    if parts.scheme != "file":
        return None
    if parts.netloc not in ("", "localhost") or len(parts.path) < 2 or "\0" in unquote(url):
        raise SettingsError(f"trainer_url: expected file:///absolute/folder, got {url!r}")
    return Path(unquote(parts.path))


def _sha256_on_disk(path: Path) -> str:
    """Hash the file as the medium has it, not as the memory of the system remembers it."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        hashed = hashlib.sha256()
        while piece := file.read(1 << 18):
            hashed.update(piece)
    return hashed.hexdigest()
