"""Reads small files again only after they changed, so that looking often costs a ``stat`` each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from wm_core.contract.files import json_object

T = TypeVar("T")
MAX_BYTES = 4 << 20  #: of a file that is read; a larger one counts as missing


class WatchedFile(Generic[T]):
    """Gives what was made of a file, and makes it anew after the file changed.

    Args:
        path: of the file, which need not be there.
        make: makes the value of the file's bytes.
        empty: the value while there is no file, or one that is too large.
    """

    def __init__(self, path: Path, make: Callable[[bytes], T], empty: T) -> None:
        self.path, self._make, self._empty = path, make, empty
        self._state: tuple[int, ...] = ()
        self.value = empty
        self.changed_s: float | None = None  #: time of the file's last change, since 1970
        self.reads = 0  #: how often it was made

    def look(self) -> T:
        """Read the file if it changed, and give the value."""
        try:
            about = self.path.stat()
            state = (about.st_ino, about.st_size, about.st_mtime_ns)
            if state == self._state:
                return self.value
            self._state, self.changed_s = state, about.st_mtime
            self.reads += 1
            whole = about.st_size <= MAX_BYTES
            self.value = self._make(self.path.read_bytes()) if whole else self._empty
        except OSError:
            self._state, self.changed_s, self.value = (), None, self._empty
        return self.value


def json_file(path: Path) -> WatchedFile[dict[str, Any]]:
    """Watch a file with a JSON object; empty where it is missing or holds none."""
    return WatchedFile(path, json_object, {})


def picture_file(path: Path) -> WatchedFile[bytes]:
    """Watch a PNG file; its value is empty where there is none."""
    return WatchedFile(
        path, lambda content: content if content[:6] == b"\x89PNG\r\n" else b"", b""
    )
