"""Judges each observation: its reward, and where it stands in its episode; no ROS.

The reward is that of a message, of a formula over numbers that are read from topics and of what
the policy sees, or of a function of the robot's owner.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wm_core.contract.errors import SettingsError, SpecMismatch
from wm_core.contract.spec import Obs, Spec
from wm_core.robot.expression import Expression
from wm_ros.convert import message_class
from wm_ros.episodes.experience import Signal, Signals
from wm_ros.episodes.readings import Reading, read_all
from wm_ros.episodes.rules import EpisodeCycle, Flags
from wm_ros.robot import Robot
from wm_ros.sensors.source import Senses

#: gets values by name, the observation and the action (A,) that was sent last
RewardFunction = Callable[[Mapping[str, float], Obs, np.ndarray], float]


class Judge(Signals):
    """Gives every observation its reward and flags, and says when the policy must wait.

    Args:
        robot: what is rewarded, and when episodes end.
        keep: most reward messages that wait for their observation.
        find: finds the class of a message by its name, as ``Reading`` takes it.

    Raises:
        SettingsError: for a message, path or function that does not exist.
    """

    def __init__(
        self, robot: Robot, keep: int = 64, find: Callable[[str], Any] = message_class
    ) -> None:
        super().__init__(keep)
        self.reward, self.episodes = robot.reward, EpisodeCycle(robot.episode)
        self.readings = {n: Reading(n, number, find) for n, number in robot.values.items()}
        self._tolerance_s = robot.tolerance_s
        self._within_ns = 0
        self._owes_first = False  # an episode began with an observation that was not recorded
        self._formulas = {}
        if robot.file is not None:
            names = robot.file.formula_names()
            formulas = robot.file.formulas.items()
            self._formulas = {path[-1]: Expression(text, names) for path, text in formulas}
        self._function = _function(self.reward.function)

    def begin(self, spec: Spec, period_ns: int) -> None:
        """Take the period from the first policy, and see that it reads what formulas read."""
        self.check(spec)
        half_ns = period_ns // 2
        wanted_ns = half_ns if self._tolerance_s is None else round(self._tolerance_s * 1e9)
        self.within_ns = min(half_ns - 1, wanted_ns)  # nearer to this observation than to others
        self._within_ns = period_ns if self._tolerance_s is None else wanted_ns
        self.episodes.period_ns = period_ns

    def check(self, spec: Spec) -> None:
        """Raise ``SpecMismatch`` for a policy without an input that a formula reads."""
        there = {*spec.vectors, *self.readings, "prev_action", "episode_s"}
        for field, formula in self._formulas.items():
            lacking = sorted(formula.used - there)
            if lacking:
                raise SpecMismatch(
                    f"{field} of the robot file reads {', '.join(lacking)}, for which the policy "
                    f"has no input; it has {[*spec.vectors]}"
                )

    def on_tick(self) -> None:
        super().on_tick()
        for reading in self.readings.values():
            reading.ticks_since += 1

    def may_come(self, stamp_ns: int, *, waited_ns: int, period_ns: int) -> bool:
        if super().may_come(stamp_ns, waited_ns=waited_ns, period_ns=period_ns):
            return True
        if waited_ns >= period_ns // 2:
            return False
        self._drain()
        return any(
            reading.may_come(stamp_ns, self._within_ns) for reading in self.readings.values()
        )

    def judge(self, senses: Senses, prev_action: np.ndarray, now_ns: int) -> Signal | None:
        """Give reward and flags of a fresh observation; None where its reward is not known.

        Args:
            senses: with the observation.
            prev_action: (A,) in [-1, 1], what was sent last.
            now_ns: steady time.
        """
        stamp_ns, obs = senses.stamp_ns, senses.obs or {}
        message = self.take(stamp_ns) if self.reward.topic is not None else None
        if message is not None and message.is_first:
            self.episodes.restart()
        if not self.episodes.running:
            return None
        self._drain()
        values, missing = read_all(self.readings, stamp_ns, self._within_ns, now_ns)
        values["episode_s"] = self.episodes.episode_s(stamp_ns)
        known = {**obs, **values, "prev_action": prev_action}
        ends, terminal, sure = self._conditions(known)
        if message is not None and message.is_last:
            ends, terminal = "message", terminal or message.is_terminal
        flags = self.episodes.observe(stamp_ns, now_ns, ends=ends, terminal=terminal)
        self._say_missing(missing)
        if self.reward.topic is not None:
            reward = None if message is None else message.reward
        else:
            reward = self._computed(known, values, obs, prev_action, missing)
        answered = message is None or message.answered
        signal = self._signal(flags, reward, stamp_ns, answered=answered, sure=sure)
        if signal is not None and self.reward.topic is None:
            self.account(signal)
        elif flags.is_last and not (message is not None and message.is_last):
            self.end_return()
        return signal

    def stops(self, now_ns: int) -> str | None:
        reason = self.episodes.stops(now_ns)
        self.ended_by = self.episodes.ended_by
        return reason

    @property
    def quiet(self) -> bool:
        return self.episodes.quiet

    def why_it_waits(self) -> str:
        by = f"ended by {self.ended_by}" if self.ended_by else "none has begun"
        return self.episodes.reset_problem or by

    def _drain(self) -> None:
        for reading in self.readings.values():
            reading.drain()

    def _conditions(self, known: Mapping[str, Any]) -> tuple[str, bool, bool]:
        """Say which condition ends the episode, if nothing can follow, and if all is known."""
        ends, terminal, sure = "", False, True
        for field in ("end_if", "terminal_if"):
            if field in self._formulas:
                truth = self._formulas[field](known)
                if math.isnan(truth):
                    sure = False
                elif truth:
                    ends, terminal = field, field == "terminal_if"
        return ends, terminal, sure

    def _say_missing(self, missing: list[str]) -> None:
        listed = ", ".join(f"{name} on {self.readings[name].topic}" for name in missing)
        self.problem = f"no message near the observation: {listed}" if listed else ""

    def _computed(
        self,
        known: Mapping[str, Any],
        values: Mapping[str, float],
        obs: Obs,
        prev_action: np.ndarray,
        missing: list[str],
    ) -> float | None:
        """Compute the reward; None where a number that it reads is missing."""
        if self._function is None:
            formula = self._formulas["expression"]
            return None if formula.used & {*missing} else formula(known)
        if missing:
            return None
        try:
            return float(self._function(values, obs, prev_action))
        except Exception as error:  # the owner's code may raise anything
            self.counts["reward_errors"] += 1
            self.problem = f"{self.reward.function}: {type(error).__name__}: {error}"
            return None

    def _signal(
        self, flags: Flags, reward: float | None, stamp_ns: int, *, answered: bool, sure: bool
    ) -> Signal | None:
        """Join reward and flags; None where a reward is required and not known."""
        is_first = flags.is_first or self._owes_first
        by_message, required = self.reward.topic is not None, self.reward.required
        self._owes_first = False
        if reward is None:
            edge = is_first or flags.is_last
            if required and (by_message or not edge):
                self._owes_first = is_first and not flags.is_last
                return None
            if by_message and not edge:
                return None
            reward = math.nan if required and not is_first else 0.0
        return Signal(
            stamp_ns,
            reward if sure else math.nan,
            is_first=is_first,
            is_last=flags.is_last,
            is_terminal=flags.is_terminal,
            answered=answered,
        )


def _function(name: str | None) -> RewardFunction | None:
    """Import the owner's function ``module:name``."""
    if name is None:
        return None
    module, attribute = name.split(":")
    try:
        function: RewardFunction = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the owner's module may raise anything
        raise SettingsError(
            f"reward.function: expected a function that can be imported, got {name}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(function):
        raise SettingsError(f"reward.function: expected a function, got {name} = {function!r}")
    return function
