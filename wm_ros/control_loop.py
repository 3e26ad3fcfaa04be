"""Runs the ticks: asks the pacer when, senses, decides, sends, records; no ROS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from wm_ros.episodes.experience import Recorder, Signals
from wm_ros.pilot import Decision, Pilot
from wm_ros.safety.guard import Guard
from wm_ros.safety.standing import Standing
from wm_ros.sensors.source import Senses
from wm_ros.sensors.table import Sensors
from wm_ros.settings import PolicySettings
from wm_ros.timing.pacer import Due, Pace, Pacer, SimulatedPacer, TimerPacer
from wm_ros.timing.rhythm import Rhythm
from wm_ros.timing.tick_stats import TickStats
from wm_ros.timing.warm_up import WarmUp

_REWARD_POLL_NS = 1_000_000  #: between two looks for the reward of a frame


def pace_of(period_ns: int, settings: PolicySettings) -> Pace:
    """Take from the settings how ticks follow the camera."""
    return Pace(
        period_ns,
        frame_wait=settings.frame_wait,
        max_gap_ns=round(settings.max_gap_s * 1e9),
        follow=settings.slow_camera == "follow",
    )


@dataclass(frozen=True)
class Outside:
    """Holds what the ticks need of the node around them."""

    simulated: bool  #: stamps are of simulated time
    ros_now_ns: Callable[[], int]  #: the clock to which stamps belong
    publish: Callable[[Decision], None]  #: sends a command, if there is one
    wake_at: Callable[[int], None]  #: has ``on_time`` called at a steady time
    say: Callable[[int, str], None]  #: writes a line of the log at a level
    report_soon: Callable[[], None]  #: has the diagnostics say that something has changed


class Tick(NamedTuple):
    """Holds what a tick came to, for other threads to look at; nobody changes it."""

    decision: Decision
    obs_age_ms: float | None  #: as the command left; None where it answers no new frame
    left_ns: int  #: steady time at which the command left


@dataclass
class ControlLoop:
    """Joins what a tick needs; the node tells it of frames and of time."""

    pilot: Pilot
    sensors: Sensors
    signals: Signals
    recorder: Recorder
    guard: Guard
    stats: TickStats
    standing: Standing
    outside: Outside
    active: bool = False
    why: str = ""  #: why the last tick had no observation, in a sentence
    frame_bytes: int = 0  #: of the newest image that set the pace
    trained_period_ns: int = 0  #: of the running policy's spec; 0 while there is none
    newest: Tick | None = None  #: the last tick
    newest_safe: Tick | None = None  #: the last in which the policy did not act
    pacer: Pacer = field(init=False)
    rhythm: Rhythm = field(default_factory=Rhythm)
    warm_up: WarmUp = field(default_factory=WarmUp)
    _warmed_version: int = -1  # of the policy whose dry runs are measured

    def set_pace(self, period_ns: int, settings: PolicySettings) -> None:
        """Begin a new grid of ticks ``period_ns`` apart."""
        now_ns, pace = time.monotonic_ns(), pace_of(period_ns, settings)
        self.warm_up.mode = settings.warm_up
        self.warm_up.forget()
        if self.sensors.first is None:
            self.pacer = TimerPacer(pace, now_ns, simulated=self.outside.simulated)
        elif self.outside.simulated:
            self.pacer = SimulatedPacer(pace, now_ns, self.rhythm)
        else:
            self.pacer = Pacer(pace, now_ns, self.rhythm)

    def use(self, settings: PolicySettings) -> None:
        """Follow the camera by changed settings, on the same grid."""
        self.pacer.pace = pace_of(self.pacer.period_ns, settings)
        self.warm_up.mode = settings.warm_up

    def on_frame(self, now_ns: int, stamp_ns: int) -> None:
        """Note a message of the sensor that sets the pace; a tick that waits for it runs next."""
        self.warm_up.drop()
        self.pacer.on_frame(now_ns, stamp_ns)
        self.arm()

    def arm(self, when_ns: int | None = None) -> None:
        """Wake when the pacer next wants to be asked or a dry run begins, or at ``when_ns``."""
        if not self.active:
            return
        if when_ns is None:
            when_ns, planned_ns = self.pacer.next_call_ns(), self.warm_up.at_ns
            when_ns = when_ns if planned_ns is None else min(when_ns, planned_ns)
        self.outside.wake_at(when_ns)

    def on_time(self) -> None:
        """Run the tick that is due, if one is, unless its frame's reward is still to come."""
        now, first = time.monotonic_ns(), self.sensors.first
        if self.warm_up.due(now) and now < self.pacer.next_call_ns():
            self.pilot.warm()
            self.warm_up.ran(time.monotonic_ns() - now)
            self.arm()
            return
        if first is not None and now >= self.pacer.next_call_ns():
            waited, period = now - first.arrived_ns, self.pacer.period_ns
            if self.signals.may_come(first.stamp_ns, waited_ns=waited, period_ns=period):
                self.arm(now + _REWARD_POLL_NS)
                return
        due = self.pacer.poll(now, self.outside.ros_now_ns())
        if due is not None:
            self._tick(due, now)
        self.arm()

    def _tick(self, due: Due, now_ns: int) -> None:
        self._follow()
        senses = self._sense(due, now_ns)
        if due.fresh:
            self.signals.on_tick()
        self.why = senses.detail
        decision = self.pilot.decide(senses, now_ns)
        self.outside.publish(decision)
        left_ns = time.monotonic_ns()
        age_ms = self._obs_age_ms(senses, left_ns) if due.fresh else None
        self.newest = Tick(decision, age_ms, left_ns)
        if decision.safe is not None:
            self.newest_safe = self.newest
        missed = self.stats.add(due, now_ns, left_ns, obs_age_ms=age_ms, safe=decision.safe)
        self.pilot.sent(decision, missed=missed, skipped=due.skipped)
        self.sensors.on_sent(self.pilot.prev_action)
        self._plan_warm_up(decision, due)
        for level, text in self.standing.tick(decision.safe, left_ns):
            self.outside.say(level, text)
        if self.standing.changed:
            self.outside.report_soon()

    def _plan_warm_up(self, decision: Decision, due: Due) -> None:
        """Plan a dry run of a policy that acted, before its next frame or tick may come."""
        if decision.safe is not None:
            self.warm_up.drop()
        if decision.safe is not None or not due.fresh:  # a repetition leaves the plan as it is
            return
        if decision.policy_version != self._warmed_version:
            self._warmed_version = decision.policy_version
            self.warm_up.forget()
        self.warm_up.plan(
            self.pacer.earliest_ns(),
            time.monotonic_ns(),
            period_ns=due.period_ns,
            work_ns=self.stats.busy_ms * 1e6,
        )

    def _follow(self) -> None:
        """Hand what the pacer measures of the camera to those that judge its frames.

        Frames that a busy policy had no time for do not make the camera slow.
        """
        pacer = self.pacer
        slow = pacer.too_slow and self.stats.busy_ms < pacer.rhythm.interval_ns * 0.5e-6
        self.guard.follow(gap_s=pacer.gap_ns * 1e-9 - 1e-6, camera_slow=slow)
        if self.trained_period_ns:
            self.recorder.follow(pacer.cadence_ns, self.trained_period_ns)

    def _sense(self, due: Due, now_ns: int) -> Senses:
        """Observe; nothing without a clock, to which stamps could be compared."""
        ros_now_ns = self.outside.ros_now_ns()
        if self.outside.simulated and not ros_now_ns:
            return Senses(None, refused="no_clock")
        first = self.sensors.first
        if not due.fresh and first is None:
            return Senses(None, refused="clock_stopped")
        if first is not None and not due.fresh and now_ns - first.arrived_ns > self.pacer.gap_ns:
            self.sensors.drain(now_ns)
            return Senses(None, refused=self._silence(now_ns - first.arrived_ns))
        senses = self.sensors.sense(fresh=due.fresh, now_ns=now_ns, ros_now_ns=ros_now_ns)
        if senses.obs is None and first is not None and first.messages:
            # Nothing belongs to a wrong stamp, so what is wrong is the stamp.
            wrong = self.guard.stamp_reason(senses.stamp_age_s)
            if wrong and senses.refused != "frame_refused":
                return replace(senses, refused=wrong, detail="")
        return senses

    def _silence(self, age_ns: int) -> str:
        """Name the silence of the camera: whatever else is missing by now is missing for that."""
        slow = self.pacer.too_slow and age_ns < 2 * self.rhythm.interval_ns
        return "camera_slow" if slow else "no_frame"

    def _obs_age_ms(self, senses: Senses, left_ns: int) -> float | None:
        first = self.sensors.first
        if senses.obs is None or first is None:
            return None
        if self.outside.simulated:  # the simulated clock stands still while the policy thinks
            return (left_ns - first.arrived_ns) * 1e-6
        return (self.outside.ros_now_ns() - senses.stamp_ns) * 1e-6
