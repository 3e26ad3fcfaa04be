"""Holds a folder of files that appears in one piece when all of them are whole.

It is written beside its place as ``<name>.unfinished`` and renamed at the end.  What a killed
process left there is removed by the next one that wants the same place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from types import TracebackType

from wm_core.contract.errors import RecordingError
from wm_core.contract.files import NO_ROOM, make_folder, sync_folder, try_lock
from wm_core.store.disk import size_text

MIN_FREE_BYTES = 200_000_000  #: of the disk, which are left free
SUFFIX = ".unfinished"
_LOCK = ".writing"  # in the unfinished folder, held while somebody writes it


class UnfinishedFolder:
    """Is a context manager: the folder is there after ``finish``, and not at all without it.

    Args:
        place: where the folder is to be; nothing may stand there.
        min_free_bytes: room of the disk that is left free.

    Raises:
        RecordingError: where something stands there, another process writes it, or the disk
            refuses.
    """

    def __init__(self, place: Path, *, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.place = Path(os.path.abspath(place))
        self.path = self.place.with_name(self.place.name + SUFFIX)  #: where files are written
        self.removed = False  #: whether a killed process had left something
        self._min_free_bytes = min_free_bytes
        self._lock: int | None = None

    def __enter__(self) -> UnfinishedFolder:
        self._refuse_what_stands_there()
        self._refuse_what_is_not_ours()
        try:
            make_folder(self.path)
            self._lock = try_lock(self.path / _LOCK)
        except OSError as error:
            raise RecordingError(
                f"{self.path} cannot be written ({error.strerror}); choose another place with --to"
            ) from error
        if self._lock is None:
            raise RecordingError(f"{self.path} is being written by another process")
        self.removed = self._empty()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            with contextlib.suppress(OSError):
                shutil.rmtree(self.path)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise RecordingError(
                f"{self.path} could not be written ({error.strerror}); what was written is "
                "removed; make room or choose another disk with --to"
            ) from error

    def check_room(self, needed: int = 0) -> None:
        """Raise ``RecordingError`` unless about ``needed`` bytes fit on the disk."""
        free = shutil.disk_usage(self.path).free
        if free - needed < self._min_free_bytes:
            size = f"about {size_text(needed)} are needed and " if needed else ""
            raise RecordingError(
                f"{self.place}: {size}{size_text(free)} are free, of which "
                f"{size_text(self._min_free_bytes)} stay free; export fewer robots, sessions or "
                "episodes, or choose another disk with --to"
            )

    def finish(self) -> None:
        """Make every file durable and move the folder to its place."""
        if self._lock is None:
            raise RecordingError(f"{self.path} is not open")
        for where, _, files in os.walk(self.path):
            for name in files:
                _sync(Path(where) / name)
            sync_folder(Path(where))
        self._refuse_what_stands_there()
        (self.path / _LOCK).unlink()
        os.rename(self.path, self.place)
        os.close(self._lock)
        self._lock = None
        sync_folder(self.place.parent)

    def _refuse_what_stands_there(self) -> None:
        if os.path.lexists(self.place):
            raise RecordingError(
                f"{self.place} exists already and is not overwritten; choose another place with "
                "--to, or remove it"
            )

    def _refuse_what_is_not_ours(self) -> None:
        """Refuse where something is at the place of the unfinished folder that no export left."""
        left = self.path.is_dir() and not self.path.is_symlink()
        ours = left and ((self.path / _LOCK).is_file() or not any(self.path.iterdir()))
        if os.path.lexists(self.path) and not ours:
            raise RecordingError(
                f"{self.path} is where an export to {self.place.name} is written first, and it "
                "is none that an export left; move it away, or choose another place with --to"
            )

    def _empty(self) -> bool:
        """Remove everything but the lock; False where there was nothing else."""
        found = [path for path in self.path.iterdir() if path.name != _LOCK]
        for path in found:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        return bool(found)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
