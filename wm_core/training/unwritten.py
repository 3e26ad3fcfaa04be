"""What of a run may fail to be written without ending it, and a run folder that goes away.

Checkpoints and the store are essential (``store.disk.insist``): they are tried again a few times,
and then the run ends with one line that says what to do; nothing half-written stays, and the same
command goes on once there is room.  Status, metrics, TensorBoard and policies are not: what cannot
be written there is counted and left out, and the next one is tried as ever.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from wm_core.store.disk import DiskFailed, disk_error_of

log = logging.getLogger(__name__)


class Home:
    """The folder of a run, as it was when the training began.

    Args:
        run: that folder; it is there.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._inode = self._look()

    def check(self) -> None:
        """Raise ``DiskFailed`` where the folder was removed or moved since."""
        if self._look() != self._inode or self._inode is None:
            raise DiskFailed(
                f"{self._run} was removed, moved or replaced while it trained; nothing more is "
                "written there: put it back and go on with --resume, or begin another run"
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._run.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


class Unwritten:
    """Counts what could not be written and is not needed to go on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  #: of failed writes, by what was to be written

    @contextlib.contextmanager
    def allowed(self, what: str) -> Iterator[None]:
        """Let the disk refuse what the block writes; the first refusal of a kind is logged."""
        try:
            yield
        except Exception as error:
            refused = disk_error_of(error)
            if refused is None:
                raise
            self.counts[what] += 1
            if self.counts[what] == 1:
                why = refused.strerror or str(refused)
                log.warning("%s could not be written (%s); the training goes on", what, why)
