"""Decides when the robot must stop; no ROS.

Fail closed: whatever is missing, old, frozen or not a number leads to the safe action.
"""

from __future__ import annotations

import math

import numpy as np

from wm_core.contract.spec import ActionSpec, Obs
from wm_ros.commands.owner import MAX_OBS_AGE_S
from wm_ros.safety.stillness import Stillness
from wm_ros.settings import SafetySettings

#: reasons of a robot that has not begun yet: they latch only once the policy has acted
WAITING = ("no_policy", "not_started", "emergency_missing")


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
    """Checks every tick, names the reason why the policy must not act, and latches it if asked to.

    Args:
        settings: when to stop, and how.
    """

    def __init__(self, settings: SafetySettings) -> None:
        self.settings = settings
        self._period_s, self._card_max_obs_age_s, self._card_surprise_limit = 0.05, 0.0, 0.0
        self._camera_slow = False
        self._set_limits()
        self.latched: str | None = None
        self.cause: str | None = None  #: what stopped the robot at the last tick, latched or not
        self.blamed: tuple[str, int] | None = None  #: input and number that did, where one did
        self.alarm = ""  #: what is odd though the policy acts; empty: nothing
        self._acted = False  # the policy has acted since the last activation or rearm
        self._surprised = 0
        self._stillness = Stillness(
            frozen_s=settings.frozen_s, frozen_frames=settings.frozen_frames
        )

    def begin(
        self, *, period_s: float, card_max_obs_age_s: float, card_surprise_limit: float = 0.0
    ) -> None:
        """Take the limits that the settings leave open from the first policy.

        Args:
            period_s: of one agent step; a longer gap without a frame stops the robot.
            card_max_obs_age_s: oldest image that the policy's card allows; 0: any.
            card_surprise_limit: largest surprise in nats that the card calls usual; 0: any.
        """
        self._period_s, self._card_max_obs_age_s = period_s, card_max_obs_age_s
        self._card_surprise_limit = card_surprise_limit
        self._set_limits()

    def use(self, settings: SafetySettings) -> None:
        """Judge by changed settings from the next tick on."""
        self.settings = settings
        self._stillness.use(frozen_s=settings.frozen_s, frozen_frames=settings.frozen_frames)
        self._set_limits()

    def _set_limits(self) -> None:
        s = self.settings
        self._max_gap_s = s.max_gap_s or self._period_s
        card_s = min(self._card_max_obs_age_s, MAX_OBS_AGE_S)
        self.max_obs_age_s = max(0.0, s.max_obs_age_s or card_s)
        self._surprise_limit = max(0.0, s.surprise_limit or self._card_surprise_limit)

    def follow(self, *, gap_s: float, camera_slow: bool) -> None:
        """Take what the pacer measures of the sensor that sets the pace.

        Args:
            gap_s: steady time behind a frame up to which its command may be repeated.
            camera_slow: whether its messages come too seldom to act upon.
        """
        self._max_gap_s, self._camera_slow = gap_s, camera_slow

    def begin_tick(self) -> None:
        """Forget what stopped the robot at the last tick."""
        self.cause, self.blamed = None, None

    def check_frame(self, *, fresh: bool, receive_age_s: float, stamp_age_s: float) -> str | None:
        """Say why this frame must not be acted upon, or None.

        Args:
            fresh: whether it came since the last tick.
            receive_age_s: steady time since it arrived.
            stamp_age_s: ROS time since its stamp; negative beyond a period is a clock jump.
        """
        if not fresh and receive_age_s > self._max_gap_s:
            return self.trip("no_frame")
        if self._camera_slow:
            return self.trip("camera_slow")
        if not fresh and self.settings.max_obs_age_s <= 0:
            return None  # the card's limit is for what is decided upon, not for its repetition
        wrong = self.stamp_reason(stamp_age_s)
        return self.trip(wrong) if wrong else None

    def stamp_reason(self, stamp_age_s: float) -> str | None:
        """Say in one word what is wrong with a stamp of this age, or None."""
        limit = self.max_obs_age_s
        if limit > 0 and stamp_age_s > limit:
            return "stale_stamp"
        if limit > 0 and stamp_age_s < -limit:
            return "stamp_in_future"
        return None

    def check_obs(
        self, obs: Obs, *, moving: bool = True, elapsed_s: float | None = None
    ) -> str | None:
        """Say why this observation must not be acted upon, or None; counts repeated images.

        Args:
            obs: images (H, W, C), vectors (n,).
            moving: whether the robot has been told to move since the last one.
            elapsed_s: since the last one; None: one period.
        """
        for name, value in obs.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                self.blamed = (name, int(np.flatnonzero(~np.isfinite(value))[0]))
                return self.trip("nan_obs")
        elapsed_s = self._period_s if elapsed_s is None else elapsed_s
        frozen = self._stillness.frozen(obs, period_s=elapsed_s, moving=moving)
        if frozen is not None:
            self.blamed = (frozen, 0)
            return self.trip("frozen_frame")
        return None

    def check_surprise(self, surprise: float | None) -> str | None:
        """Say that the policy has been surprised for too long, or None; it may only be an alarm.

        Args:
            surprise: nats by which the observation moved the policy's prior; None: not known.
        """
        s = self.settings
        if surprise is None or not self._surprise_limit:
            return None
        beyond = not math.isfinite(surprise) or surprise > self._surprise_limit
        self._surprised = self._surprised + 1 if beyond else 0
        if self._surprised < s.surprise_ticks:
            self.alarm = ""
            return None
        self.alarm = "surprised"
        return self.trip("surprised", latch=True) if s.surprise_action == "stop" else None

    def check_latch(self) -> str | None:
        """Say that the robot is latched, or None; called when nothing else stops it."""
        return None if self.latched is None else "latched"

    def acted(self) -> None:
        """Note that the policy acts: from now on every reason latches, if any does."""
        self._acted = True

    def trip(self, reason: str, *, latch: bool | None = None) -> str:
        """Return ``reason`` to stop, and remember it where the guard latches.

        Args:
            reason: in one word.
            latch: whether it latches; None: as the settings say.
        """
        self.cause = reason
        waits = not self._acted and (reason in WAITING or reason.startswith("no_"))
        latches = self.settings.latch_safe and not waits if latch is None else latch
        if latches and self.latched is None:
            self.latched = reason
        return reason

    def rearm(self) -> None:
        """Let the policy act again after a latched trip."""
        self.latched = None
        self.activate()

    def activate(self) -> None:
        """Forget what was seen before; what is latched stays latched."""
        self.cause, self.blamed, self.alarm = None, None, ""
        self._acted, self._surprised = False, 0
        self._stillness.reset()
