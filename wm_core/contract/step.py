"""Defines what is recorded of one agent step; every field is timed the same way.

``Step`` is the one table of per-step fields: each of its numbers (a float, a bool or an int) is
recorded, stored and indexed under its name without being listed again.  To add one, append it
with a default, which recordings made before it are read with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec, Obs, Spec

# What may be learnt from; one value beyond these can ruin weights for good.
MAX_REWARD = 1e6  #: magnitude of one step's reward
MAX_MAGNITUDE = 1e9  #: of a number in a vector, SI units
MAX_PERIOD_S = 3600.0  #: for which one action may be held
ACTION_SLACK = 1e-3  #: by which rounding may carry a continuous action beyond [-1, 1]

# What a recording can hold.
STAMP_LIMIT_NS = 2**31 * 1_000_000_000  #: the seconds of a ROS stamp are int32
WHOLE_LIMIT = 2**53  #: whole numbers below it are exact in the float64 that records them


@dataclass(frozen=True, slots=True)
class Step:
    """Holds what the robot knew and did at one agent step.

    ``reward`` and the flags arrived together with ``obs``; ``action`` was chosen after seeing it.
    """

    obs: Obs  #: images (H, W, C) and vectors (n,) float32, SI units
    action: np.ndarray  #: (A,) float32 in [-1, 1] or one-hot, what was sent after every limit
    reward: float  #: 0.0 on the first step of an episode
    is_first: bool  #: no action led here
    is_last: bool  #: terminated or truncated, or the record breaks off here
    is_terminal: bool  #: terminated: nothing can follow, so bootstrap with 0
    is_intervention: bool = False  #: a person or a safety rule chose the action
    is_valid: bool = True  #: False where it is not ``usable``: kept on disk, kept out of training
    requested_action: np.ndarray | None = None  #: (A,) float32, asked for by the policy
    policy_version: int = -1  #: of the policy that acted; -1 for none (random, safe, expert)
    stamp_ns: int = 0  #: capture time of the image, nanoseconds; the time of its messages
    period_s: float = 0.0  #: for which the action was held, where that is not the spec's period
    #: by camera the JPEG picture that its image was decoded from, which is what gets recorded
    jpegs: Mapping[str, bytes] | None = None


_DTYPES = {"float": "<f8", "bool": "?", "int": "<i8"}
#: the recorded numbers of a step by name; the stamp is not among them: every message has it
NUMBERS: dict[str, np.dtype[Any]] = {
    field.name: np.dtype(_DTYPES[str(field.type)])
    for field in fields(Step)
    if field.type in _DTYPES and field.name != "stamp_ns"
}
#: what a number is in a recording that was made before it, as far as there is such a value
DEFAULTS = {f.name: f.default for f in fields(Step) if f.default is not MISSING}
FLOATS = tuple(name for name, dtype in NUMBERS.items() if dtype.kind == "f")
FLAGS = tuple(name for name, dtype in NUMBERS.items() if dtype.kind == "b")


def is_finite(obs: Obs, action: np.ndarray, reward: float) -> bool:
    """Tell whether images, vectors, action (A,) and reward are free of NaN and infinity."""
    arrays = [action, *(v for v in obs.values() if v.dtype.kind == "f")]
    return bool(np.isfinite(reward)) and all(bool(np.isfinite(a).all()) for a in arrays)


_BOUNDS = {"reward": (-MAX_REWARD, MAX_REWARD), "period_s": (0.0, MAX_PERIOD_S)}


def usable(
    action_spec: ActionSpec,
    obs: Mapping[str, np.ndarray],
    action: np.ndarray,
    **numbers: float | np.ndarray,
) -> np.ndarray:
    """Tell which steps may be learnt from, (...) bool: the one rule of robot, store and trainer.

    Numbers have to be finite and within the bounds above, a continuous action within [-1, 1],
    choices one-hot or, where nothing was sent, all zeros.

    Args:
        action_spec: of the action.
        obs: arrays (..., *shape) by name; whole numbers, such as pixels, may be left out.
        action: (..., A) what was sent.
        **numbers: (...) each of the float ``NUMBERS`` that is to be looked at, such as reward.
    """
    lead = action.ndim - 1
    if action_spec.discrete:
        good = action_spec.is_chosen(action) | (action == 0.0).all(-1)
    else:
        good = (np.abs(action) <= 1.0 + ACTION_SLACK).all(-1)  # False for NaN, here and below
    for name, value in numbers.items():
        low, high = _BOUNDS.get(name, (-MAX_MAGNITUDE, MAX_MAGNITUDE))
        good = good & (low <= value) & (value <= high)
    for values in obs.values():
        if values.dtype.kind == "f":
            within = np.abs(values) <= MAX_MAGNITUDE
            good = good & within.all(axis=tuple(range(lead, values.ndim)))
    return np.asarray(good)


def is_usable(step: Step, spec: Spec) -> bool:
    """Tell whether ``step``, which ``check_step`` passes, may be learnt from."""
    numbers = {name: getattr(step, name) for name in FLOATS}
    return bool(usable(spec.action, step.obs, step.action, **numbers))


def check_step(step: Step, spec: Spec) -> None:
    """Raise ``SpecMismatch`` unless a recording of ``spec`` can hold ``step`` as it is.

    Whether it may be learnt from is another question, which ``usable`` answers.
    """
    spec.check_obs(step.obs)
    for array in (step.action, step.requested_action):
        if array is not None and (
            array.shape != (spec.action.size,) or array.dtype.kind not in "fiub"
        ):
            raise SpecMismatch(
                f"action: expected ({spec.action.size},) float32, got {array.shape} {array.dtype}"
            )
    stamp_ns = step.stamp_ns
    if not isinstance(stamp_ns, int | np.integer) or not 0 <= stamp_ns < STAMP_LIMIT_NS:
        raise SpecMismatch(
            f"stamp: expected whole nanoseconds from 0 to 2**31 s, as ROS has them, got "
            f"{float(stamp_ns):.6g} ns; set the clock that stamps the sensor's messages"
        )
    for name, dtype in NUMBERS.items():
        value = getattr(step, name)
        if not _is_recordable(value, dtype.kind):
            raise SpecMismatch(
                f"{name}: expected a {_KINDS[dtype.kind]}, got another {type(value).__name__}"
            )


_KINDS = {"f": "number", "b": "True or False", "i": "whole number below 2**53"}


def _is_recordable(value: Any, kind: str) -> bool:
    """Tell whether a number of a step is of the kind that its field has."""
    if kind == "b":
        return isinstance(value, bool | np.bool_)
    if isinstance(value, int | np.integer):
        return -WHOLE_LIMIT < int(value) < WHOLE_LIMIT
    return kind == "f" and isinstance(value, float | np.floating)
