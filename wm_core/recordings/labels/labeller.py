"""Says what a reward is made of: a formula over what was measured, or a function of the user's."""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.files import siblings
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.robot.expression import Expression, Names

NO_REWARD = math.nan  #: of a step whose reward is not known: it is kept, and not learnt from


@dataclass
class StepRun:
    """Is a run of steps of one episode that follow each other, and where it stands."""

    robot: str
    session: str
    task: str
    spec: Spec
    steps: Sequence[Step]
    start: int  #: of its first step in the episode, from 0
    before: Step | None  #: the step before the first; None where it begins, or that is missing
    memory: dict[str, Any] = field(default_factory=dict)  #: of the episode, for a user's function


class Labeller(Protocol):
    """Gives steps rewards."""

    @property
    def fingerprint(self) -> str:
        """Give the sha256 (64 hexadecimal digits) of all that decides the rewards."""

    def rewards(self, run: StepRun) -> np.ndarray:
        """Compute the reward (n,) float64 that arrived with each step; NaN where it is unknown.

        What it says of the first step of an episode counts for nothing: no action led there.

        Raises:
            SettingsError: where it cannot be computed.
        """


class RewardFormula:
    """Computes rewards by a formula, as a robot file has them, over what each step holds.

    It may name the numbers of vectors (``place[0]``, or ``place["x"]`` where they have names), of
    ``prev_action``, and ``reward`` (that was recorded), ``step``, ``is_last``, ``is_terminal``,
    ``is_intervention`` and ``policy_version``.

    Args:
        text: the formula, such as ``1 - abs(place[0])`` or ``is_terminal``.
    """

    _SCALARS = (
        "reward", "step", "is_last", "is_terminal", "is_intervention", "policy_version",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        self._text = text
        self._made: tuple[Spec, Expression] | None = None  # for the newest spec

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"formula {self._text}".encode()).hexdigest()

    def rewards(self, run: StepRun) -> np.ndarray:
        before, formula = run.before, self._of(run.spec)
        found = []
        for at, step in enumerate(run.steps):
            led = np.full(run.spec.action.size, NO_REWARD) if before is None else before.action
            known = {name: float(getattr(step, name)) for name in self._SCALARS if name != "step"}
            known["step"] = float(run.start + at)
            vectors = {name: step.obs[name] for name in run.spec.vectors}
            found.append(formula(known | vectors | {"prev_action": led}))
            before = step
        return np.array(found, np.float64)

    def _of(self, spec: Spec) -> Expression:
        if self._made is None or self._made[0] != spec:
            self._made = spec, self._for(spec)
        return self._made[1]

    def _for(self, spec: Spec) -> Expression:
        vectors = {
            name: _elements(vector.names, vector.size) for name, vector in spec.vectors.items()
        }
        vectors["prev_action"] = _elements(spec.action.names, spec.action.size)
        try:
            return Expression(self._text, Names(self._SCALARS, vectors))
        except ValueError as error:
            raise SettingsError(f"--with column {self._text!r}: {error}") from error


def _elements(names: tuple[str, ...], size: int) -> tuple[str, ...]:
    return names if len(names) == size else tuple(str(i) for i in range(size))


class FunctionOfSteps:
    """Computes rewards by a function of the user's: ``reward(obs, action, info) -> float``.

    It is called for every step but the first of an episode, in order.  ``obs`` holds the arrays
    of the step, ``action`` (A,) float32 in [-1, 1] or one-hot is the one that led to it, and
    ``info`` has ``previous`` (the arrays of the step before), ``step`` (its number in the
    episode), ``reward`` (that was recorded), ``is_last``, ``is_terminal``, ``is_intervention``,
    ``stamp_ns``, ``period_s``, ``task``, ``robot`` and ``memory``: a dictionary that it may fill,
    empty at the begin of each episode.  A step behind a gap has no step before it, and gets none.

    Args:
        place: FILE:FUNCTION, a Python file and the name of a function in it.

    Raises:
        SettingsError: where there is no such file or function.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        path, self._function = _loaded(place)
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        name = place.rpartition(":")[2]
        self.fingerprint = hashlib.sha256(f"function {name} {content}".encode()).hexdigest()

    def rewards(self, run: StepRun) -> np.ndarray:
        found, before = np.full(len(run.steps), NO_REWARD), run.before
        for at, step in enumerate(run.steps):
            if before is not None:
                found[at] = self._reward(run, step, before, run.start + at)
            before = step
        return found

    def _reward(self, run: StepRun, step: Step, before: Step, number: int) -> float:
        info = {
            "previous": before.obs, "step": number, "reward": step.reward,
            "is_last": step.is_last, "is_terminal": step.is_terminal,
            "is_intervention": step.is_intervention, "stamp_ns": step.stamp_ns,
            "period_s": step.period_s or run.spec.period_s, "task": run.task,
            "robot": run.robot, "memory": run.memory,
        }  # fmt: skip
        where = f"--with python {self._place}: at step {number} of session {run.session[:8]}"
        try:
            value = self._function(step.obs, before.action, info)
        except (Exception, SystemExit) as error:  # whatever it raises is told in one line
            reason = " ".join(str(error).split())[:200]
            raise SettingsError(f"{where} it raised {type(error).__name__}: {reason}") from error
        if value is None:
            return NO_REWARD
        try:
            reward = float(value)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"{where} expected a number or None, got {value!r:.80}") from error
        if math.isinf(reward):
            raise SettingsError(f"{where} expected a finite number, got {reward}")
        return reward


def _loaded(place: str) -> tuple[Path, Callable[[Any, Any, Mapping[str, Any]], Any]]:
    """Load the function that FILE:FUNCTION names, by running its file."""
    file, colon, name = place.rpartition(":")
    path = Path(file)
    if not colon or not name:
        raise SettingsError(
            f"--with python {place}: expected FILE:FUNCTION, as reward.py:my_reward"
        )
    if not path.is_file():
        raise SettingsError(f"--with python: {nearest(path.name, siblings(path), what='file')}")
    about = importlib.util.spec_from_file_location(f"wm_labels_{path.stem}", path)
    if about is None or about.loader is None:
        raise SettingsError(f"--with python {place}: expected a Python file, which ends with .py")
    module = importlib.util.module_from_spec(about)
    try:
        about.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the file does when it is run
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(
            f"--with python {path}: running it raised {type(error).__name__}: {reason}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise SettingsError(f"--with python {path}: {nearest(name, known, what='function')}")
    return path, function
