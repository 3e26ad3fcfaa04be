"""Turns ticks into Steps: joins each reward to its image and cuts episodes; no ROS.

Reward and flags arrive with the observation they belong to, so a Step is complete at its own tick,
except that only the next tick can tell whether the record breaks off behind it.  The recorder
therefore holds one step back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wm_core.contract.spec import Obs
from wm_core.contract.step import Step, is_finite

if TYPE_CHECKING:
    from wm_ros.sensors.source import Senses


@dataclass(frozen=True, slots=True)
class Signal:
    """Holds the reward and the flags of one image, from one message with the image's stamp."""

    stamp_ns: int
    reward: float
    is_first: bool
    is_last: bool
    is_terminal: bool
    answered: bool = True  #: False: the robot did not use the command that answered the last frame


UNREWARDED_TICKS = 3  #: ticks without a reward message after which no tick waits for one


class Signals:
    """Keeps reward messages for the tick that acts on their image, and adds up returns.

    A message without a tick is counted, never shifted to another one.

    Args:
        keep: most messages that wait.
    """

    def __init__(self, keep: int = 64) -> None:
        self._keep = keep
        self._ticks_since = UNREWARDED_TICKS  # frames acted upon since the last message
        self._waiting: OrderedDict[int, Signal] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.problem = ""  #: why the last observation has no reward, for people
        self.unheard = ""  #: why nothing was ever heard of what rewards read, for people
        self.ended_by = ""  #: what ended the last episode
        self.within_ns = 0  #: farthest that a message may be stamped from its image
        self.return_now = 0.0
        self.returns: list[float] = []  #: of the latest 100 episodes that ended

    def put(self, signal: Signal) -> None:
        """Remember one message."""
        self._ticks_since = 0
        self.account(signal)
        self._waiting[signal.stamp_ns] = signal
        while len(self._waiting) > self._keep:
            self._waiting.popitem(last=False)
            self.counts["signals_without_tick"] += 1

    def account(self, signal: Signal) -> None:
        """Add a reward to the return of its episode."""
        self.counts["signals"] += 1
        if signal.is_first:
            self.return_now = 0.0
        elif np.isfinite(signal.reward):
            self.return_now += signal.reward
        if signal.is_last:
            self.end_return()

    def end_return(self) -> None:
        """Note the return of an episode that ended."""
        self.returns = [*self.returns[-99:], self.return_now]
        self.counts["episodes"] += 1

    def judge(self, senses: Senses, prev_action: np.ndarray, now_ns: int) -> Signal | None:
        """Give reward and flags of a fresh observation; None where they are not known.

        Args:
            senses: with the observation.
            prev_action: (A,) in [-1, 1], what was sent last.
            now_ns: steady time.
        """
        return self.take(senses.stamp_ns)

    def stops(self, now_ns: int) -> str | None:
        """Give the reason, in one word, why the policy must wait between two episodes."""
        return None

    @property
    def quiet(self) -> bool:
        """Tell whether something else drives the robot between two episodes."""
        return False

    def why_it_waits(self) -> str:
        """Say in detail what is waited for between two episodes."""
        return ""

    def on_tick(self) -> None:
        """Note that a tick acts on a new frame, whether its message has come or not."""
        self._ticks_since += 1

    def may_come(self, stamp_ns: int, *, waited_ns: int, period_ns: int) -> bool:
        """Tell whether a frame should wait for its message, which travels on another topic.

        Args:
            stamp_ns: stamp of the frame.
            waited_ns: time since the frame came; at most half a period is waited.
            period_ns: of one tick.
        """
        return (
            self._ticks_since < UNREWARDED_TICKS
            and waited_ns < period_ns // 2
            and self._nearest(stamp_ns) is None
        )

    def _nearest(self, stamp_ns: int) -> int | None:
        """Find the stamp of the message that belongs to a frame."""
        if stamp_ns in self._waiting or not self._waiting:
            return stamp_ns if stamp_ns in self._waiting else None
        near = min(self._waiting, key=lambda stamp: abs(stamp - stamp_ns))
        return near if abs(near - stamp_ns) <= self.within_ns else None

    def take(self, stamp_ns: int) -> Signal | None:
        """Take the message of this stamp, or the nearest one; older ones are dropped, counted."""
        nearest = self._nearest(stamp_ns)
        found = None if nearest is None else self._waiting.pop(nearest)
        for old in [s for s in self._waiting if s < stamp_ns]:
            del self._waiting[old]
            self.counts["signals_without_tick"] += 1
        return found


class Recorder:
    """Turns ticks into Steps and hands them over, one step behind.

    Episodes are cut whether anything is recorded or not, for the policy's sake.

    Args:
        reward_required: without a message of its stamp a step is not stored.
    """

    def __init__(self, *, reward_required: bool = True) -> None:
        self._put: Callable[[Step], bool] | None = None
        self._period_ns = 0
        self._held_s = 0.0  # true seconds of an agent step, where they are not the spec's
        self._reward_required = reward_required
        self._held: Step | None = None
        self._last_stamp_ns: int | None = None
        self._broken: str | None = "start"
        self._unrewarded = False  # the last tick was not stored for want of a reward
        self.stored = 0
        self.skipped: Counter[str] = Counter()  #: ticks whose step was not stored, by reason
        self.breaks: Counter[str] = Counter()  #: episodes that the record cut, by reason
        self.invalid = 0

    def open(self, put: Callable[[Step], bool] | None, period_ns: int) -> None:
        """Begin to record.

        Args:
            put: takes a finished step and returns False where it dropped it (``Spool.put``); None
                where nothing is to be recorded.
            period_ns: of one agent step; stamps further apart than one and a half are a gap.
        """
        self._put, self._period_ns = put, period_ns

    def follow(self, cadence_ns: int, trained_ns: int) -> None:
        """Take the time between two decisions, which a slow camera or ``period_s`` may change.

        Args:
            cadence_ns: between two stamps, as it is; half as much again is a gap.
            trained_ns: that the policy's spec states; where the two differ by more than a tenth
                every step says how long its action was held.
        """
        self._period_ns = cadence_ns
        differs = abs(cadence_ns - trained_ns) > trained_ns // 10
        self._held_s = round(cadence_ns * 1e-9, 4) if differs else 0.0

    def begins(self, stamp_ns: int, signal: Signal | None) -> str | None:
        """Say why an episode has to begin with this frame, or None where it follows the last one.

        The policy gets the same answer, so that it acts as it is trained.  Where no reward
        comes nothing is stored, and the policy keeps its memory until a reward comes again.
        """
        if signal is not None and signal.is_first:
            return "start"
        if self._broken is not None or self._last_stamp_ns is None:
            return self._broken or "start"
        if not 0 < stamp_ns - self._last_stamp_ns <= self._period_ns * 3 // 2:
            return "gap"
        if signal is not None and not signal.answered:
            return "unanswered"
        return "no_reward" if self._unrewarded and signal is not None else None

    def add(
        self,
        obs: Obs,
        action: np.ndarray,
        signal: Signal | None,
        *,
        stamp_ns: int,
        begins: str | None,
        requested_action: np.ndarray | None = None,
        policy_version: int = -1,
        missed: bool = False,
        is_intervention: bool = False,
    ) -> None:
        """Record one tick.

        Args:
            obs: images (H, W, C) and vectors (n,) as the policy got them.
            action: (A,) in [-1, 1], what was sent after every limit.
            signal: reward and flags of this very image.
            stamp_ns: the image's stamp.
            begins: why an episode begins here, from ``begins``; None where none does.
            requested_action: (A,) what the policy asked for; None where no policy chose.
            policy_version: -1 where no policy chose.
            missed: the command left too late to lead to the next frame.
            is_intervention: a person or a safety rule chose the action.
        """
        if signal is None and self._reward_required:
            self.skip("no_reward")
            self._last_stamp_ns, self._broken, self._unrewarded = stamp_ns, None, True
            return
        valid = is_finite(obs, action, 0.0 if signal is None else signal.reward)
        if not self._emit(breaks=begins if valid else begins or "nan"):
            begins = begins or "spool_full"  # its predecessor is lost, so nothing leads here
        step = Step(
            obs=obs,
            action=np.asarray(action, np.float32),
            reward=0.0 if signal is None or (valid and begins is not None) else signal.reward,
            is_first=begins is not None or not valid,
            is_last=not valid or (signal is not None and signal.is_last),
            is_terminal=signal is not None and signal.is_terminal,
            is_intervention=is_intervention,
            is_valid=valid,
            requested_action=requested_action,
            policy_version=policy_version,
            stamp_ns=stamp_ns,
            period_s=self._held_s,
        )
        self._held, self._last_stamp_ns = step, stamp_ns
        self._broken, self._unrewarded = None, False
        if step.is_last:
            self.invalid += int(not valid)
            self._emit(breaks=None)
            self._broken = "start" if valid else "nan"
        elif missed:
            self._broken = "late_command"

    def skip(self, reason: str) -> None:
        """Count a tick whose step is not stored; the record breaks off behind the last one."""
        self.skipped[reason] += 1
        self.break_off(reason)

    def repeat(self) -> None:
        """Count a tick that repeated the last command: it is part of the step held back."""
        self.skipped["repeated"] += 1

    def break_off(self, reason: str) -> None:
        """End the episode that is being recorded; the next step begins a new one."""
        if self._broken is None:
            self._broken = reason
        self._emit(breaks=reason)

    def close(self) -> None:
        """Hand over the step that is held back, as the last of its episode."""
        self.break_off("close")

    def _emit(self, breaks: str | None) -> bool:
        """Hand over the held step, as a last one where the record breaks; False if it is lost."""
        step, self._held = self._held, None
        if step is None:
            return True
        if breaks is not None and not step.is_last:
            step = replace(step, is_last=True)
            self.breaks[breaks] += 1
        if self._put is None:
            self.skipped["not_recording"] += 1
            return True
        if self._put(step):
            self.stored += 1
            return True
        self.skipped["spool_full"] += 1
        return False

    def counters(self) -> dict[str, int]:
        """Give all counters: each tick's step is ``recorded``, ``held`` or ``skipped_*``."""
        return {
            "steps_recorded": self.stored,
            "steps_held": int(self._held is not None),
            "steps_invalid": self.invalid,
            **{f"skipped_{k}": v for k, v in sorted(self.skipped.items())},
            **{f"breaks_{k}": v for k, v in sorted(self.breaks.items())},
        }
