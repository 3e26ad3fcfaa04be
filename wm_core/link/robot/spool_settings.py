"""Sets when a chunk is sealed, what may wait on the robot, and what gives way at the bounds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wm_core.contract.frozen import Frozen, ranged
from wm_core.contract.inputs import CodecRule

Overflow = Literal["drop_newest", "drop_oldest", "pause_exploration", "keep_valuable"]


class SpoolSettings(Frozen):
    """Says when a chunk is sealed and how much may wait."""

    seal_steps: int = ranged(64, 1, 4096, "Steps after which a chunk of experience is sealed")
    seal_s: float = ranged(2.0, 0.001, 3600, "Seconds after which a chunk of experience is sealed")
    seal_bytes: int = ranged(
        1_000_000,
        1,
        2**40,
        "Bytes, before compression but of pictures after it, at which a chunk is sealed",
    )
    sync_s: float = ranged(
        0.5,
        0,
        3600,
        "Most seconds of steps that a power cut may cost; 0: steps are not written before their "
        "chunk is sealed, which spares the disk and lets a kill cost as much as seal_s",
    )
    max_bytes: int = ranged(
        2_000_000_000, 1, 2**62, "Most bytes on the disk that wait for the trainer"
    )
    min_free_bytes: int = ranged(
        100_000_000,
        0,
        2**62,
        "Bytes of the disk, but at most a twentieth of it, that experience leaves free",
    )
    queue_steps: int = ranged(2048, 1, 2**31, "Most steps in memory that wait for the disk")
    queue_bytes: int = ranged(
        64_000_000,
        1,
        2**40,
        "Most bytes of steps in memory that wait for the disk; those that are just being written "
        "may be as many again",
    )
    overflow: Overflow = Field(
        "drop_oldest",
        description="What gives way where the spool or its queue is full; pause_exploration: the "
        "policy acts by its mean from four fifths on, and beyond the bound the newest goes; "
        "keep_valuable: the oldest goes that has no intervention, reward or end of an episode",
    )

    codec: CodecRule = Field(
        "zstd",
        description="How colour and grey images are recorded: zstd, without loss; jpeg, as "
        "pictures of quality 95; auto, as pictures where zstd takes them to more than a third. "
        "A robot file may say it of each camera",
    )

    @property
    def evicts(self) -> bool:
        """Tell whether earlier steps give way to new ones."""
        return self.overflow in ("drop_oldest", "keep_valuable")
