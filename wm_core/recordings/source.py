"""Defines what a recording is to the rest: episodes of Steps, and what was left out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Protocol

from wm_core.contract.spec import Spec
from wm_core.contract.step import Step


class Source(Protocol):
    """Is a recording that can be read as episodes of Steps, once or several times.

    Nothing in it is invented: what has no observation or no action is left out and counted.
    """

    @property
    def name(self) -> str:
        """Name the robot that its steps are stored under: 1 to 64 of a-z, 0-9, _ and -."""

    @property
    def task(self) -> str:
        """Say what was done, as free text; it is recorded with every chunk."""

    @property
    def spec(self) -> Spec:
        """Describe every step."""

    @property
    def fingerprint(self) -> str:
        """Give the sha256 (64 hexadecimal digits) of what is read and of how it is mapped.

        The same source gives the same chunks, so that importing it twice stores nothing twice.
        """

    @property
    def left_out(self) -> Counter[str]:
        """Count by reason (a-z, 0-9, _) what was not taken; complete once episodes() ended."""

    def episodes(self) -> Iterator[Iterable[Step]]:
        """Yield the episodes, each of which is read to its end before the next is asked for.

        The first step of each has ``is_first`` and its last ``is_last``; stamps grow.

        Raises:
            RecordingError: for damage, with its place, and for what does not fit the mapping.
        """
