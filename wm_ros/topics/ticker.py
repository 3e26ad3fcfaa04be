"""Wakes the node when its next tick is due."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.timer import Timer

_NOW_NS = 1_000


class TickTimer:
    """Calls back once, at a time of the steady clock.

    Args:
        node: whose executor runs the timer.
        closers: closes the timer.
        on_time: called when the time has come.
    """

    def __init__(self, node: Node, closers: ExitStack, on_time: Callable[[], None]) -> None:
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer: Timer = node.create_timer(3600.0, on_time, clock=steady)
        self._timer.cancel()
        closers.callback(node.destroy_timer, self._timer)

    def wake_at(self, when_ns: int) -> None:
        """Call back at the steady time ``when_ns`` and not before."""
        self._timer.timer_period_ns = max(when_ns - time.monotonic_ns(), _NOW_NS)
        self._timer.reset()

    def stop(self) -> None:
        """Call back no more."""
        self._timer.cancel()
