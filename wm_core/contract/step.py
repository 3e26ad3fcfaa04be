"""Defines what is recorded of one agent step; every field is timed the same way.

``Step`` is the one table of per-step fields: each of its numbers (a float, a bool or an int) is
recorded, stored and indexed under its name without being listed again.  To add one, append it
with a default, which recordings made before it are read with.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np

from wm_core.contract.spec import Obs


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
    is_valid: bool = True  #: False where a NaN was found: kept on disk, kept out of training
    requested_action: np.ndarray | None = None  #: (A,) float32, asked for by the policy
    policy_version: int = -1  #: of the policy that acted; -1 for none (random, safe, expert)
    stamp_ns: int = 0  #: capture time of the image, nanoseconds; the time of its messages
    period_s: float = 0.0  #: for which the action was held, where that is not the spec's period


_DTYPES = {"float": "<f8", "bool": "?", "int": "<i8"}
#: the recorded numbers of a step by name; the stamp is not among them: every message has it
NUMBERS: dict[str, np.dtype[Any]] = {
    field.name: np.dtype(_DTYPES[str(field.type)])
    for field in fields(Step)
    if field.type in _DTYPES and field.name != "stamp_ns"
}
#: what a number is in a recording that was made before it, as far as there is such a value
DEFAULTS = {f.name: f.default for f in fields(Step) if f.default is not MISSING}
FLAGS = tuple(name for name, dtype in NUMBERS.items() if dtype.kind == "b")


def is_finite(obs: Obs, action: np.ndarray, reward: float) -> bool:
    """Tell whether images, vectors, action (A,) and reward are free of NaN and infinity."""
    arrays = [action, *(v for v in obs.values() if v.dtype.kind == "f")]
    return bool(np.isfinite(reward)) and all(bool(np.isfinite(a).all()) for a in arrays)
