"""What makes the robot stop, and what stopping means; no ROS.

Fail closed: whatever is missing, old, frozen or not a number leads to the channel's safe action.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wm_core.contract.spec import ActionSpec, Obs

SafeKind = Literal["zero", "hold", "none"]


@dataclass(frozen=True, slots=True)
class SafetySettings:
    """When to stop."""

    max_obs_age_s: float = 0.2  #: by the image's stamp; 0 switches this check off
    max_receive_age_s: float = 0.05  #: by arrival: a tick without a newer frame is safe beyond it
    frozen_frames: int = 0  #: this many equal frames in a row count as frozen; 0 = off
    latch: bool = False  #: once tripped, stay safe until ``rearm``


def safe_command(kind: SafeKind, zero: np.ndarray, last: np.ndarray | None) -> np.ndarray | None:
    """The command (command_size,) that stops the robot; None: send nothing.

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
    """(A,) action within the spec's range and slew; None where it is not (A,) finite numbers.

    Args:
        action: (A,) what is wished for, in [-1, 1] or one score per choice.
        prev_action: (A,) what was sent last, in [-1, 1].
        spec: range and largest change per tick.
    """
    if action.shape != (spec.size,) or not np.isfinite(action).all():
        return None
    return spec.limit(action, prev_action)


class Guard:
    """Looks at every tick's observation and names the reason why it must not be acted upon."""

    def __init__(self, settings: SafetySettings) -> None:
        self.settings = settings
        self.latched: str | None = None
        self._digest = 0
        self._same = 0

    def check_frame(self, *, fresh: bool, receive_age_s: float, stamp_age_s: float) -> str | None:
        """Why this frame must not be acted upon, or None.

        Args:
            fresh: whether it came since the last tick.
            receive_age_s: steady time since it arrived.
            stamp_age_s: ROS time since its stamp; negative beyond a period is a clock jump.
        """
        limit = self.settings.max_obs_age_s
        if not fresh and receive_age_s > self.settings.max_receive_age_s:
            return self.trip("no_frame")
        if limit > 0 and stamp_age_s > limit:
            return self.trip("stale_stamp")
        if limit > 0 and stamp_age_s < -limit:
            return self.trip("stamp_in_future")
        return self._tripped()

    def check_obs(self, obs: Obs) -> str | None:
        """Why this observation must not be acted upon, or None; counts frames that are equal."""
        if any(v.dtype != np.uint8 and not np.isfinite(v).all() for v in obs.values()):
            return self.trip("nan_obs")
        if self.settings.frozen_frames > 0:
            digest = 0
            for value in obs.values():
                if value.dtype == np.uint8:
                    digest = zlib.crc32(value.data, digest)
            self._same = self._same + 1 if digest == self._digest else 1
            self._digest = digest
            if self._same >= self.settings.frozen_frames:
                return self.trip("frozen_frame")
        return self._tripped()

    def rearm(self) -> None:
        """Let the policy act again after a latched trip."""
        self.latched, self._same = None, 0

    def trip(self, reason: str) -> str:
        """The reason, found here or elsewhere; remembered where the guard latches."""
        if self.settings.latch and self.latched is None:
            self.latched = reason
        return reason

    def _tripped(self) -> str | None:
        return None if self.latched is None else "latched"
