"""Says where an episode begins and ends, and what is waited for in between; no ROS.

An end is asked for (by a service or topic), or comes by time, by condition or by a message.  It
becomes the last step at the next observation.  Then the robot waits, in its safe action, for the
reset service, for a pause, and for a start where episodes do not begin by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from wm_core.robot.episode import EpisodeRules

_UNANSWERED_PERIODS = 2  #: after which an end that was asked for needs no observation


@dataclass(frozen=True, slots=True)
class Flags:
    """Says of one observation where it stands in its episode."""

    is_first: bool = False
    is_last: bool = False
    is_terminal: bool = False


class EpisodeCycle:
    """Follows one episode after another.

    Args:
        rules: when an episode ends and what happens until the next one.
        call_reset: calls the reset service; False where it is not there.
    """

    def __init__(
        self, rules: EpisodeRules, call_reset: Callable[[], bool] = lambda: False
    ) -> None:
        self.rules, self.call_reset = rules, call_reset
        self.running = rules.autostart  #: whether the policy may act
        self.period_ns = 50_000_000  #: of an agent step
        self.ended_by = ""  #: what ended the last episode
        self.reset_problem = ""  #: why the reset did not succeed
        self._first = True  # the next observation begins an episode
        self._began_ns = 0  # stamp of its first observation
        self._asked: tuple[str, bool, int] | None = None  # why, terminal, steady time
        self._start_asked = False
        self._over_ns = 0  # steady time of the last end
        self._reset_due = False
        self._called_ns: int | None = None  # steady time of the call of the reset service

    @property
    def waits(self) -> bool:
        """Tell whether there is anything to wait for between two episodes."""
        rules = self.rules
        return rules.reset is not None or rules.pause_s > 0 or not rules.autostart

    @property
    def quiet(self) -> bool:
        """Tell whether the reset service drives the robot, so that nothing else may."""
        reset = self.rules.reset
        at_work = self._reset_due and self._called_ns is not None and not self.reset_problem
        return reset is not None and reset.quiet and at_work and not self.running

    def ask_start(self) -> str | None:
        """Ask for an episode to begin; or say why it cannot."""
        if self.running:
            return "an episode runs already; call ~/episode/end first"
        self._start_asked = True
        if self.reset_problem:  # a person has put the robot back
            self._reset_due, self.reset_problem = False, ""
        return None

    def ask_end(self, now_ns: int, *, terminal: bool, why: str) -> str | None:
        """Ask for the episode to end; or say why it cannot.

        Between episodes it calls the reset service again.
        """
        if self.running:
            self._asked = why, terminal, now_ns
            return None
        if self.rules.reset is None:
            return "no episode runs"
        self._end(now_ns, why)
        return None

    def on_reset(self, problem: str) -> None:
        """Take the answer of the reset service: empty where it succeeded."""
        self.reset_problem = problem
        if not problem:
            self._reset_due = False

    def episode_s(self, stamp_ns: int) -> float:
        """Give the seconds from the episode's first observation to this stamp."""
        return 0.0 if self._first else (stamp_ns - self._began_ns) * 1e-9

    def observe(self, stamp_ns: int, now_ns: int, *, ends: str, terminal: bool) -> Flags:
        """Take an observation of a running episode into account.

        Args:
            stamp_ns: of the observation.
            now_ns: steady time.
            ends: what else ends the episode here; empty for nothing.
            terminal: that nothing can follow then.
        """
        first, seconds = self._first, self.episode_s(stamp_ns)
        if first:
            self._first, self._began_ns, ends, terminal = False, stamp_ns, "", False
        if self._asked is not None:
            ends, asked_terminal, _ = self._asked
            terminal = terminal or asked_terminal
        if not ends and self.rules.max_s and seconds >= self.rules.max_s:
            ends, terminal = "max_s", False
        if ends:
            self._end(now_ns, ends)
        return Flags(first, bool(ends), bool(ends) and terminal)

    def resume(self) -> None:
        """Let a running episode begin anew after a pause of the node."""
        self._first, self._asked = True, None

    def restart(self) -> None:
        """Let the next observation begin an episode, as a message says that it does."""
        self._first, self.running = True, True

    def _end(self, now_ns: int, why: str) -> None:
        self.ended_by, self._asked, self._first = why, None, True
        self._over_ns, self._start_asked, self.reset_problem = now_ns, False, ""
        self.running = not self.waits
        self._reset_due, self._called_ns = self.rules.reset is not None, None

    def stops(self, now_ns: int) -> str | None:
        """Go on with what is waited for; give the reason, in one word, why the robot waits."""
        if self._asked is not None:  # no observation came that could be the last
            why, _, asked_ns = self._asked
            if now_ns - asked_ns > _UNANSWERED_PERIODS * self.period_ns:
                self._end(now_ns, why)
        if self.running:
            return None
        reset = self.rules.reset
        if reset is not None and self._reset_due:
            return self._reset(now_ns, reset.service, round(reset.wait_s * 1e9))
        if now_ns - self._over_ns < self.rules.pause_s * 1e9:
            return "no_episode"
        if not self.rules.autostart and not self._start_asked:
            return "no_episode"
        self.running, self._start_asked = True, False
        return None

    def _reset(self, now_ns: int, service: str, wait_ns: int) -> str:
        """Call the reset service as soon as it is there, and see that it answers in time."""
        if self._called_ns is None and self.call_reset():
            self._called_ns, self.reset_problem = now_ns, ""
        since_ns = self._over_ns if self._called_ns is None else self._called_ns
        if not self.reset_problem and now_ns - since_ns > wait_ns:
            what = "is not there" if self._called_ns is None else "does not answer"
            self.reset_problem = f"{service} {what} for {wait_ns * 1e-9:g} s"
        return "reset_failed" if self.reset_problem else "resetting"
