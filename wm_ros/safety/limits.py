"""Keeps a command within range, rate and jerk, from where the robot is; no ROS.

All arrays are (n,) in physical units, over the elements of every channel.
"""

from __future__ import annotations

import numpy as np


class Limiter:
    """Moves a command towards what is wanted, as fast as its limits allow and no faster.

    With a limit of jerk it brakes in time, so that it never passes its aim.

    Args:
        low: (n,) least values.
        high: (n,) greatest values.
        max_rate: (n,) greatest change per second; infinity for none.
        max_jerk: (n,) greatest change of the rate per second; infinity for none.
        period_s: between two commands, by the true clock of the node.
    """

    def __init__(
        self,
        low: np.ndarray,
        high: np.ndarray,
        max_rate: np.ndarray,
        max_jerk: np.ndarray,
        period_s: float,
    ) -> None:
        self.low, self.high = np.asarray(low, float), np.asarray(high, float)
        self._rate, self._jerk = np.asarray(max_rate, float), np.asarray(max_jerk, float)
        self._period_s = period_s
        self.slewed = np.isfinite(self._rate) | np.isfinite(self._jerk)  #: (n,) needs a start
        self.sent = np.full(self.low.size, np.nan)  #: (n,) what was sent last; NaN: unknown
        self._speed = np.zeros(self.low.size)  # change per second of the last step

    @property
    def change(self) -> np.ndarray:
        """Give the change (n,) of what was sent last from what was sent before."""
        return self._speed * self._period_s

    def start(self, at: np.ndarray) -> None:
        """Begin anew at rest from ``at`` (n,); NaN where that is not known."""
        self.sent, self._speed = np.array(at, float), np.zeros(self.low.size)

    def limited(self, wanted: np.ndarray) -> np.ndarray:
        """Give the value (n,) nearest to ``wanted`` (n,) that the limits allow next."""
        aim = np.clip(np.asarray(wanted, float), self.low, self.high)
        if not self.slewed.any():
            return aim
        known = np.isfinite(self.sent)
        start = np.where(known, self.sent, aim)
        speed = self._reachable((aim - start) / self._period_s, aim - start)
        moved = np.clip(start + speed * self._period_s, self.low, self.high)
        return np.where(self.slewed & known, moved, aim)

    def _reachable(self, speed: np.ndarray, way: np.ndarray) -> np.ndarray:
        """Cut the speed (n,) that would reach the aim, ``way`` (n,) ahead, in one period."""
        speed = np.clip(speed, -self._rate, self._rate)
        jerked = np.isfinite(self._jerk)
        if not jerked.any():
            return speed
        change = np.where(jerked, self._jerk, 1.0) * self._period_s
        # Braking by ``change`` each period from a speed v takes k = ceil(v / change) periods,
        # which cover period * (k v - change * k (k - 1) / 2): solved for the fastest v.
        aim = np.abs(way) / self._period_s
        k = np.maximum(1.0, np.ceil(np.sqrt(0.25 + 2.0 * aim / change) - 0.5 - 1e-9))
        fastest = (aim + change * k * (k - 1.0) / 2.0) / k
        braked = np.clip(speed, -fastest, fastest)
        near = np.clip(braked, self._speed - change, self._speed + change)
        return np.where(jerked, near, speed)

    def remember(self, command: np.ndarray, which: np.ndarray, stopped: np.ndarray) -> None:
        """Note what was sent.

        Args:
            command: (n,).
            which: (n,) bool, the elements that it was sent to; the others keep what they have.
            stopped: (n,) bool, those that it brings to rest at once.
        """
        change = (command - self.sent) / self._period_s
        self._speed = np.where(~which | stopped | ~np.isfinite(change), 0.0, change)
        self.sent = np.where(which, command, self.sent)
