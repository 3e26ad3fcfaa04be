"""Defines the rows of the ledger and what makes one sound."""

from __future__ import annotations

from typing import NamedTuple

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import MAX_FIRST_STEP, MAX_STEPS, ChunkKey

MAX_ARRIVAL = 2**53  #: far below where SQLite would run out of numbers
MAX_FILE_BYTES = 2**32
MAX_REASON = 500  #: characters of why a chunk was refused
#: of a row of chunks, in order
COLUMNS = "arrival, robot, session, seq, sha256, bytes, steps, first_step, received_ns"


class ChunkRow(NamedTuple):
    """Describes one acknowledged chunk."""

    arrival: int
    robot: str
    session: str
    seq: int
    sha256: str
    bytes: int
    steps: int
    first_step: int
    received_ns: int

    @property
    def key(self) -> ChunkKey:
        return ChunkKey(self.robot, self.session, self.seq)

    def is_sound(self) -> bool:
        """Tell whether every field is of its kind and within its bounds, as the view ``sound``."""
        try:
            self.key.check()
            return (
                all(isinstance(getattr(self, name), int) for name in _NUMBERS)
                and len(bytes.fromhex(self.sha256)) == 32
                and 1 <= self.arrival <= MAX_ARRIVAL
                and 0 <= self.bytes <= MAX_FILE_BYTES
                and 1 <= self.steps <= MAX_STEPS
                and 0 <= self.first_step <= MAX_FIRST_STEP
            )
        except (ChunkRefused, TypeError, ValueError):
            return False


_NUMBERS = ("arrival", "bytes", "steps", "first_step", "received_ns")


class Refused(NamedTuple):
    """Describes one chunk in quarantine."""

    robot: str
    session: str
    seq: int
    sha256: str
    bytes: int
    reason: str
    received_ns: int


#: the same for SQLite: what a row of chunks has to fulfil
SOUND = " AND ".join(
    (
        f"arrival BETWEEN 1 AND {MAX_ARRIVAL}",
        "typeof(robot) = 'text' AND length(robot) BETWEEN 1 AND 64",
        "robot NOT GLOB '*[^a-z0-9_-]*'",
        "typeof(session) = 'text' AND length(session) = 32",
        "session NOT GLOB '*[^0-9a-f]*'",
        "typeof(seq) = 'integer' AND seq BETWEEN 0 AND 99999999",
        "typeof(sha256) = 'text' AND length(sha256) = 64",
        "sha256 NOT GLOB '*[^0-9a-f]*'",
        f"typeof(bytes) = 'integer' AND bytes BETWEEN 0 AND {MAX_FILE_BYTES}",
        f"typeof(steps) = 'integer' AND steps BETWEEN 1 AND {MAX_STEPS}",
        f"typeof(first_step) = 'integer' AND first_step BETWEEN 0 AND {MAX_FIRST_STEP}",
        "typeof(received_ns) = 'integer'",
    )
)
