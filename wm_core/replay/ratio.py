"""Limits the updates of a learner by the steps that were collected."""

from __future__ import annotations


class ReplayRatio:
    """Counts updates against collected steps; it holds back a learner, never a robot.

    Args:
        ratio: replayed agent steps per collected agent step.
        batch_steps: B x T, agent steps per update.
        prefill: collected steps before the first update.
        burst: most updates that the prefill allows; None: as many as any other steps.
    """

    def __init__(
        self, ratio: float, batch_steps: int, *, prefill: int = 0, burst: int | None = None
    ) -> None:
        self.ratio, self.batch_steps, self.prefill = ratio, batch_steps, prefill
        self.burst = burst
        self.updates = 0

    def due(self, collected: int) -> int:
        """Count the updates that are allowed now, with ``collected`` steps in the store."""
        if collected < self.prefill:
            return 0
        return max(0, int(self.ratio * collected / self.batch_steps) - self._never - self.updates)

    def used(self) -> int:
        """Count the collected steps that the updates so far have used up, the prefill at least."""
        done = self.updates + self._never
        return max(self.prefill, int(done * self.batch_steps / self.ratio))

    @property
    def _never(self) -> int:
        """Updates that the prefill allows and that are never done."""
        if self.burst is None:
            return 0
        return max(0, int(self.ratio * self.prefill / self.batch_steps) - self.burst)

    def did(self, updates: int = 1) -> None:
        """Count ``updates`` as done."""
        self.updates += updates

    def actual(self, collected: int) -> float:
        """Give the ratio that was reached: a slow learner stays below ``ratio``."""
        return self.updates * self.batch_steps / max(collected, 1)
