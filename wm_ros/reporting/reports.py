"""Writes reports on the robot as small JSON files, each replaced as a whole; no ROS."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from wm_core.contract.files import json_text, remove_unfinished, write_atomically

log = logging.getLogger(__name__)


class ReportWriter:
    """Runs a thread that writes the newest of each report, so that a slow disk delays no tick.

    Args:
        folder: where the files go; created when it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._newest: dict[str, dict[str, object]] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="report-writer", daemon=True)
        self._thread.start()

    def put(self, name: str, report: dict[str, object]) -> None:
        """Have ``report`` written to the file ``name``; one that waits is replaced."""
        with self._wake:
            self._newest[name] = report
            self._wake.notify()

    def close(self) -> None:
        """Write what waits and end the thread; may be called twice."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        remove_unfinished(self.folder, "*.json")
        logged = last = False
        while not last:
            with self._wake:
                self._wake.wait_for(lambda: self._newest or self._closing)
                work, self._newest = self._newest, {}
                last = self._closing
            for name, report in work.items():
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    write_atomically(self.folder / name, f"{json_text(report)}\n".encode())
                except OSError as error:  # a full disk must not end the robot
                    if not logged:
                        log.error("reports cannot be written: %s", error)
                    logged = True
