"""Keeps an emergency stop across restarts: a file that is there while it is latched; no ROS."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from pathlib import Path

from wm_core.contract.files import remove_unfinished, sync_folder, write_durably

log = logging.getLogger(__name__)

STOP_NAME = "emergency_stop"  #: of the file; what is in it is the reason
_REASONS = ("emergency_stop", "emergency_silent")
_AGAIN_S = 5.0  #: between two tries on a disk that refuses


class StopFile:
    """Runs a thread that writes and removes the file, so that a slow disk delays no tick.

    Args:
        folder: of the node's files; made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STOP_NAME
        self.found = self._read()  #: the reason that was latched before; empty: none was
        self._changes: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stop-file", daemon=True)
        self._thread.start()

    def keep(self, reason: str) -> None:
        """Have ``reason`` found by the next start, empty for none; does not wait for the disk."""
        self._changes.put(reason)

    def close(self) -> None:
        """Write what waits and end the thread; may be called twice."""
        self._changes.put(None)
        self._thread.join(timeout=5.0)

    def _read(self) -> str:
        """Read the reason; a file that cannot be read, or says something else, is a stop too."""
        try:
            text = self._path.read_text(errors="replace").strip()
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            log.error("an emergency stop is assumed, as its file cannot be read: %s", error)
            return _REASONS[0]
        return text if text in _REASONS else _REASONS[0]

    def _run(self) -> None:
        remove_unfinished(self._path.parent, STOP_NAME)
        wanted = self.found
        written: str | None = wanted  # None: a failed write may have left anything
        logged = last = False
        while not last:
            try:
                change = self._changes.get(timeout=None if wanted == written else _AGAIN_S)
                last = change is None
                wanted = wanted if change is None else change
            except queue.Empty:
                pass  # the disk refused: try again
            if wanted == written:
                continue
            try:
                self._write(wanted)
                written = wanted
            except OSError as error:  # it holds in this process all the same
                written = None
                if not logged:
                    log.error("an emergency stop, or its end, cannot be kept: %s", error)
                logged = True

    def _write(self, reason: str) -> None:
        if reason:
            write_durably(self._path, f"{reason}\n".encode())
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._path.unlink()
            sync_folder(self._path.parent)
