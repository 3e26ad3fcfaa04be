"""Holds what people do to a running robot: stop it, drive it themselves, let it run for a while.

No ROS: the topics and services of ``wm_ros.topics.operator`` call this.  Every time is the steady
clock, in nanoseconds, and passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from wm_ros.settings import OperatorSettings

#: a button that was down so lately may be down still, and the last message another button's
_SEVERAL_NS = 500_000_000
_LOOKS = 2  #: that find nobody: the graph may know a publisher later than its first message
_FIRST_NS = 2_000_000_000  #: in which a message that was sent before the node began arrives


class EmergencyStop:
    """Is the last word: once it stops the robot only a rearm, after its release, lets it act.

    A stop comes from the service, from a message that says true, or from silence: of a heartbeat,
    or of a topic that nobody publishes (any more).

    Args:
        settings: topic and heartbeat.
        latched: the reason that was latched before the node was configured; empty: none was.
        keep: gets the reason whenever it changes, so that a restart finds it.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        latched: str = "",
        keep: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._declared = bool(settings.emergency_stop_topic)
        self._timeout_ns = int(settings.emergency_stop_timeout_s * 1e9)
        self._heard_ns: int | None = None
        self._there_ns: int | None = None  # since when somebody publishes the topic
        self._missed_looks = 0
        self._pressed = False  # the last message said true
        self._pressed_ns: int | None = None  # when one said so last
        self._keep, self._latched = keep, ""
        self._latch(latched)

    @property
    def latched(self) -> str:
        """Return the reason that stays until a rearm; empty: there is none."""
        return self._latched

    def _latch(self, reason: str) -> None:
        if reason != self._latched:
            self._latched = reason
            self._keep(reason)

    def on_message(self, pressed: bool, now_ns: int) -> None:
        """Remember a message."""
        self._heard_ns, self._pressed = now_ns, pressed
        self._missed_looks = 0
        if self._there_ns is None:
            self._there_ns = now_ns
        if pressed:
            self._pressed_ns = now_ns
            self._latch("emergency_stop")

    def on_publishers(self, count: int, now_ns: int) -> None:
        """Remember how many publish the topic; none any more, twice in a row, stops."""
        self._missed_looks = 0 if count else self._missed_looks + 1
        if count:
            self._there_ns = now_ns if self._there_ns is None else self._there_ns
        elif self._there_ns is not None and self._missed_looks >= _LOOKS:
            self._there_ns = None
            self._latch(self._latched or "emergency_silent")

    def on_service(self) -> None:
        """Stop until the next rearm."""
        self._latch("emergency_stop")

    def cause(self, now_ns: int) -> str | None:
        """Name what stops the robot at this moment, whatever was latched before."""
        if self._pressed:
            return "emergency_stop"
        if self._pressed_ns is not None and now_ns - self._pressed_ns < _SEVERAL_NS:
            return "emergency_stop"
        if not self._declared:
            return None
        if self._there_ns is None:
            return "emergency_missing" if self._heard_ns is None else "emergency_silent"
        if self._heard_ns is None and now_ns - self._there_ns < _FIRST_NS:
            return "emergency_missing"  # what was pressed before may still be on its way
        if self._timeout_ns and (
            self._heard_ns is None or now_ns - self._heard_ns > self._timeout_ns
        ):
            return "emergency_missing" if self._heard_ns is None else "emergency_silent"
        return None

    def check(self, now_ns: int) -> str | None:
        """Say in one word why the robot must stop, or None; what stopped it once stays."""
        cause = self.cause(now_ns)
        if cause is not None and cause != "emergency_missing":
            self._latch(cause)
        return self._latched or cause

    def release(self) -> None:
        """Let the robot act again; the caller has seen that there is no cause."""
        self._latch("")


class Takeover:
    """Remembers what a person commands, channel by channel, while the commands come.

    Args:
        settings: how long a command lasts.
    """

    def __init__(self, settings: OperatorSettings) -> None:
        self._timeout_ns = int(settings.takeover_timeout_s * 1e9)
        self._values: dict[int, tuple[int, np.ndarray | None]] = {}
        self.refused = 0  #: commands that did not fit

    def on_command(self, channel: int, value: np.ndarray | None, now_ns: int) -> None:
        """Remember a command.

        Args:
            channel: its number.
            value: (n,) physical units; None says stop.
            now_ns: steady time.
        """
        self._values[channel] = now_ns, value

    def active(self, now_ns: int) -> Mapping[int, np.ndarray | None]:
        """Give the commands (n,) that hold now, by channel; none while no person drives."""
        self._values = {
            channel: (came_ns, value)
            for channel, (came_ns, value) in self._values.items()
            if now_ns - came_ns <= self._timeout_ns
        }
        return {channel: value for channel, (_, value) in self._values.items()}


class RunTime:
    """Says for how long the policy may act.

    Args:
        settings: whether it acts at once, and for how long.
    """

    def __init__(self, settings: OperatorSettings) -> None:
        self._on_start, self._run_ns = settings.run_on_start, int(settings.run_s * 1e9)
        self._until_ns: int | None = None
        self._started = False

    def activate(self, now_ns: int) -> None:
        """Begin anew, as the node does when it is activated."""
        self._started, self._until_ns = False, None
        if self._on_start:
            self.start(now_ns)

    def start(self, now_ns: int) -> float:
        """Let the policy act from now on; gives the seconds, 0 for without end."""
        self._started = True
        self._until_ns = now_ns + self._run_ns if self._run_ns else None
        return self._run_ns / 1e9

    def check(self, now_ns: int) -> str | None:
        """Say in one word why the policy may not act, or None."""
        if not self._started:
            return "not_started"
        return "run_over" if self._until_ns is not None and now_ns >= self._until_ns else None


class Interventions:
    """Holds all that people do to the robot.

    Args:
        settings: of all of them.
        latched: by an emergency stop before; empty: nothing was.
        keep: gets what an emergency stop latches, so that a restart finds it.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        latched: str = "",
        keep: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.emergency = EmergencyStop(settings, latched, keep)
        self.takeover = Takeover(settings)
        self.run = RunTime(settings)
