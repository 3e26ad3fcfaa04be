"""Holds a little of the disk back, so that what is lost on a full disk can still be noted."""

from __future__ import annotations

import contextlib
from pathlib import Path

RESERVE_NAME = "reserve"
_BYTES = 16 << 10  #: a journal, with what its file system needs for it


class Reserve:
    """Is a file that gives its blocks to the next one who writes.

    Args:
        folder: of the session.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / RESERVE_NAME

    def hold(self) -> None:
        """Take the blocks, unless they are held or there is no room."""
        with contextlib.suppress(OSError):
            if not self._path.exists():
                try:
                    self._path.write_bytes(bytes(_BYTES))
                except OSError:
                    self.release()  # what there is of it would not be enough
                    raise

    def release(self) -> bool:
        """Give the blocks back; returns whether any were held."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            return True
        return False
