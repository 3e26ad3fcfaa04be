"""Judges how long a policy's steps take, by the processor time of their thread; no ROS.

Other programs that share the processor make a step late, and are not the policy's fault: so not
the clock on the wall judges it.  A policy whose own work does not fit into a period is never tried
on the robot; one that comes to take longer (numbers close to zero are slow on some processors)
gives way after a few steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from wm_core.contract.errors import PolicySlow
from wm_ros.settings import SlotSettings

LATE_STEPS = 3  #: in a row that count
TRIES = 5  #: of which one must hold the deadline: the first ones fill caches


def limit_of(settings: SlotSettings, card_period_s: float, *, simulated: bool = False) -> float:
    """Give the longest seconds of processor time that a step may take; infinity: any.

    Args:
        settings: ``inference_deadline_s``, and the period that overrides the card's.
        card_period_s: of one step, as the policy was trained.
        simulated: time stands still while the policy thinks; a stated deadline holds all the same.
    """
    stated = settings.inference_deadline_s
    if stated < 0 or (simulated and not stated):
        return math.inf
    return stated or float(getattr(settings, "period_s", 0.0)) or card_period_s


class Deadline:
    """Counts the steps of one policy in a row that took too long.

    Args:
        limit_s: processor time that a step may take, both halves of it together.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.late = 0  #: steps in a row
        self._spent_s = 0.0

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time of a part of a step that runs in this thread."""
        began = time.thread_time()
        try:
            yield
        finally:
            self._spent_s += time.thread_time() - began

    def step(self) -> None:
        """End a step.

        Raises:
            PolicySlow: where it and those before it took too long.
        """
        spent, self._spent_s = self._spent_s, 0.0
        self.late = self.late + 1 if spent > self.limit_s else 0
        if self.late >= LATE_STEPS:
            raise slow(spent, self.limit_s)


def slow(spent_s: float, limit_s: float) -> PolicySlow:
    """Say that a step took too long."""
    return PolicySlow(
        f"a step takes {spent_s * 1e3:.3g} ms of processor time, at most {limit_s * 1e3:.3g} ms "
        "are allowed (inference_deadline_s; 0: one period)"
    )
