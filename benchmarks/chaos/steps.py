"""Steps that say which they are: robot, session and number stand in the pixels of each.

So what arrives can be compared with what was sent, step by step, without any counter.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import Columns

SIZE = 16  #: pixels of a side
SPEC = Spec(
    images={"image": ImageSpec(height=SIZE, width=SIZE)},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)
_TAG = struct.Struct("<16sII8s")  # session, number, its complement, robot
_PROGRESS = struct.Struct("<qqq")


class Progress(NamedTuple):
    """What a robot had done when it was last seen alive; survives its death."""

    put: int = 0  #: steps handed to the spool
    sealed: int = 0  #: steps that the spool called durable
    dropped: int = 0  #: steps that the spool counted as dropped


def make_step(robot: str, session: str, number: int) -> Step:
    """Make step ``number`` of a session; an episode has 50."""
    tag = _TAG.pack(bytes.fromhex(session), number, number ^ 0xFFFFFFFF, robot.encode()[:8])
    image = np.resize(np.frombuffer(tag, np.uint8), (SIZE, SIZE, 3))
    return Step(
        obs={"image": image},
        action=np.array([number % 200 / 100 - 1], np.float32),
        reward=float(number % 1000),
        is_first=number % 50 == 0,
        is_last=number % 50 == 49,
        is_terminal=False,
        stamp_ns=10**18 + number * 50_000_000,
    )


def wrong_steps(columns: Columns) -> list[str]:
    """Say which steps of a chunk are not what its key and numbers promise."""
    meta, wrong = columns.meta, []
    for index in range(meta.steps):
        number = meta.first_step + index
        expected = make_step(meta.robot, meta.session, number)
        same = (
            np.array_equal(columns.image("image", index), expected.obs["image"])
            and columns.action[index, 0] == expected.action[0]
            and columns.numbers["reward"][index] == expected.reward
            and columns.stamp_ns[index] == expected.stamp_ns
        )
        if not same:
            wrong.append(f"{meta.robot}/{meta.session}: step {number} is another")
    return wrong


class ProgressFile:
    """Shares a session's progress with the campaign through a mapped file.

    Args:
        path: the file, made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_PROGRESS.pack(0, 0, 0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _PROGRESS.size)

    def write(self, progress: Progress) -> None:
        """Say how far the session has come."""
        self._shared[:] = _PROGRESS.pack(*progress)

    def read(self) -> Progress:
        """Read how far the session had come."""
        return Progress(*_PROGRESS.unpack(self._shared[:]))
