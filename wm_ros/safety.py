"""Decides when the robot must stop and with which command; no ROS.

Fail closed: whatever is missing, old, frozen or not a number leads to the channel's safe action.
"""

from __future__ import annotations

import zlib

import numpy as np

from wm_core.contract.spec import ActionSpec, Obs
from wm_ros.settings import SafeKind, SafetySettings


def safe_command(kind: SafeKind, zero: np.ndarray, last: np.ndarray | None) -> np.ndarray | None:
    """Choose the command (command_size,) that stops the robot; None: send nothing.

    Args:
        kind: ``zero``, ``hold`` (the last command, zero where there is none) or ``none``.
        zero: (command_size,) what stops it, of the policy's spec; empty where there is none yet.
        last: (command_size,) the command sent last.
    """
    if kind == "none":
        return None
    if kind == "hold" and last is not None:
        return last
    return zero


def limited(action: np.ndarray, prev_action: np.ndarray, spec: ActionSpec) -> np.ndarray | None:
    """Limit an action (A,) in range and slew; None where it is not (A,) finite numbers.

    Args:
        action: (A,) what is asked for, in [-1, 1] or one score per choice.
        prev_action: (A,) what was sent last, in [-1, 1].
        spec: range and largest change per tick.
    """
    if action.shape != (spec.size,) or not np.isfinite(action).all():
        return None
    return spec.limit(action, prev_action)


class Guard:
    """Checks every tick's observation and names the reason why it must not be acted upon.

    Args:
        settings: when to stop, and how.
    """

    def __init__(self, settings: SafetySettings) -> None:
        self.settings = settings
        self._period_s, self._card_max_obs_age_s = 0.05, 0.0
        self._set_limits()
        self.latched: str | None = None
        self._repeats: dict[str, tuple[int, int]] = {}  # by image: digest, equal ones in a row

    def begin(self, *, period_s: float, card_max_obs_age_s: float) -> None:
        """Take the limits that the settings leave open from the first policy.

        Args:
            period_s: of one agent step; a longer gap without a frame stops the robot.
            card_max_obs_age_s: oldest image that the policy's card allows; 0: any.
        """
        self._period_s, self._card_max_obs_age_s = period_s, card_max_obs_age_s
        self._set_limits()

    def use(self, settings: SafetySettings) -> None:
        """Judge by changed settings from the next tick on."""
        self.settings = settings
        self._set_limits()

    def _set_limits(self) -> None:
        s = self.settings
        self._max_gap_s = s.max_gap_s or self._period_s
        self._max_obs_age_s = max(0.0, s.max_obs_age_s or self._card_max_obs_age_s)

    def check_frame(self, *, fresh: bool, receive_age_s: float, stamp_age_s: float) -> str | None:
        """Say why this frame must not be acted upon, or None.

        Args:
            fresh: whether it came since the last tick.
            receive_age_s: steady time since it arrived.
            stamp_age_s: ROS time since its stamp; negative beyond a period is a clock jump.
        """
        limit = self._max_obs_age_s
        if not fresh and receive_age_s > self._max_gap_s:
            return self.trip("no_frame")
        if limit > 0 and stamp_age_s > limit:
            return self.trip("stale_stamp")
        if limit > 0 and stamp_age_s < -limit:
            return self.trip("stamp_in_future")
        return self._tripped()

    def check_obs(self, obs: Obs) -> str | None:
        """Say why this observation must not be acted upon, or None; counts repeated images."""
        if any(v.dtype.kind == "f" and not np.isfinite(v).all() for v in obs.values()):
            return self.trip("nan_obs")
        if self.settings.frozen_frames > 0:
            for name, value in obs.items():
                if value.ndim == 3:
                    digest = zlib.crc32(value.data)
                    before, count = self._repeats.get(name, (digest, 0))
                    self._repeats[name] = digest, count + 1 if digest == before else 1
            if any(n >= self.settings.frozen_frames for _, n in self._repeats.values()):
                return self.trip("frozen_frame")
        return self._tripped()

    def rearm(self) -> None:
        """Let the policy act again after a latched trip."""
        self.latched, self._repeats = None, {}

    def trip(self, reason: str) -> str:
        """Return ``reason`` to stop, and remember it where the guard latches."""
        if self.settings.latch_safe and self.latched is None:
            self.latched = reason
        return reason

    def _tripped(self) -> str | None:
        return None if self.latched is None else "latched"
