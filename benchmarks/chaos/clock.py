"""The wall clock of the campaign's processes, moved without moving the machine's.

``time.time`` and ``time.time_ns`` add an offset that stands in a file shared with the campaign.
Timers and deadlines run on the monotonic clock, which nobody can move.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_FORMAT = "<q"


class WallClock:
    """Holds the offset of a process's wall clock in a file of 8 bytes.

    Args:
        path: the file; made with an offset of 0 where it is missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(struct.pack(_FORMAT, 0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 8)

    @property
    def offset_ns(self) -> int:
        return struct.unpack(_FORMAT, self._shared[:8])[0]

    def jump_to(self, offset_ns: int) -> None:
        """Set the offset of every process that installed this clock."""
        self._shared[:8] = struct.pack(_FORMAT, offset_ns)

    def install(self) -> None:
        """Make this process read its wall clock with the offset, from now on."""
        real_ns = time.time_ns
        time.time_ns = lambda: real_ns() + self.offset_ns
        time.time = lambda: time.time_ns() / 1e9
