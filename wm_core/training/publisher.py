"""Decides when a policy is published, and under which version."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from wm_core.contract.errors import PolicyRefused
from wm_core.training.schedule import Every

log = logging.getLogger(__name__)

FIRST_PUBLISH = 50  #: updates before the first trained policy, and at least between any two


@dataclass(frozen=True)
class Publication:
    """Describes a policy that is about to be published."""

    version: int
    parent: int  #: the version before it; -1 for none
    updates: int
    agent_steps: int


class Publisher:
    """Numbers the published policies of a run.

    Args:
        write: writes a policy out; None publishes nothing.
        every: updates between two policies; the first trained one comes after ``FIRST_PUBLISH``.
        untrained: updates after which the behaviour has learnt nothing yet; they do not count.
    """

    def __init__(
        self, write: Callable[[Publication], None] | None, every: int, *, untrained: int = 0
    ) -> None:
        self._write, self._every, self._untrained = write, Every(every), untrained
        self.version = -1  #: of the newest; -1 before the first
        self.updates = 0  #: behind the newest version

    @property
    def is_on(self) -> bool:
        """Whether this run publishes."""
        return self._write is not None

    def due(self, updates: int) -> bool:
        """Whether a version is due after ``updates``."""
        return self.is_on and (
            self._every.due(updates)
            if self._every.last
            else updates >= self._untrained + FIRST_PUBLISH
        )

    def due_at_end(self, updates: int) -> bool:
        """Whether a run that ends after ``updates`` leaves another version.

        A short run leaves a trained policy too, not only the version before any update.
        """
        least = FIRST_PUBLISH if self.updates else 1
        return self.is_on and updates - max(self.updates, self._untrained) >= least

    def publish(self, updates: int, agent_steps: int, *, last: bool = False) -> None:
        """Write the policy out as the next version.

        A file that answers otherwise than its network is not published, and the training goes on:
        robots keep the version that they have, and the next one is tried when it is due.  That
        happens to a sound file, rarely, where a policy is so sharp that it amplifies rounding.

        Args:
            updates: behind it.
            agent_steps: of experience behind it.
            last: whether the run ends with it.

        Raises:
            PolicyRefused: for the first version of a run, and for the last.
        """
        assert self._write is not None
        version = self.version + 1
        self._every.done(updates)  # one that fails is tried again when the next one is due
        try:
            self._write(Publication(version, self.version, updates, agent_steps))
        except PolicyRefused as error:
            if self.version < 0:  # what is wrong from the beginning stays so
                raise
            if last:
                raise PolicyRefused(
                    f"the policy after {updates} updates is not published: {error}; its "
                    "checkpoint is kept, so train some updates more with --resume"
                ) from error
            log.warning(
                "the policy after %d updates is not published: %s; robots keep version %d, and "
                "the training goes on", updates, error, self.version,
            )  # fmt: skip
        else:
            self.resume(version, updates)

    def resume(self, version: int, updates: int) -> None:
        """Go on above ``version``, which was made after ``updates``."""
        self.version, self.updates = version, updates
        self._every.done(updates)
