"""Bounds what a policy's card may ask of a robot whose owner has stated nothing; no ROS.

A card narrows the owner's limits and never widens them.  Where the owner has stated none, these
hold: small enough for a robot that nobody has described, and said wherever they narrow a card.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import Spec

MAX_OBS_AGE_S = 2.0  #: oldest observation that a card may allow by itself
PERIODS_S = (0.001, 10.0)  #: of a policy's step; those of the parameter ``period_s``

#: largest magnitude of a command by its unit, and by what it moves where no unit is known
_BY_UNIT = {
    "m/s": 2.0, "rad/s": 2.0 * math.pi, "deg/s": 360.0, "m": 2.0, "rad": 2.0 * math.pi,
    "deg": 360.0, "N": 50.0, "Nm": 50.0,
}  # fmt: skip
_BY_MOTION = {"velocity": 2.0 * math.pi, "position": 2.0 * math.pi, "effort": 50.0}


def largest(units: Sequence[str], fields: Sequence[str], motion: str, size: int) -> np.ndarray:
    """Give the largest magnitude of each element of a command, (size,), by its unit.

    Args:
        units: of the elements, as far as they are known.
        fields: of a twist that the elements drive; empty for other messages.
        motion: what the elements command.
        size: elements.
    """
    told = [*units, *[""] * size][:size]
    if len(fields) == size:
        twist = {"linear": "m/s", "angular": "rad/s"}
        told = [u or twist.get(f.split(".")[0], "") for u, f in zip(told, fields, strict=True)]
    plain = ["".join(c for c in unit if c not in " *·.") for unit in told]
    return np.array([_BY_UNIT.get(unit, _BY_MOTION.get(motion, 1.0)) for unit in plain])


def check_period(spec: Spec) -> None:
    """Raise ``SpecMismatch`` for a policy that no robot can run in time."""
    if not PERIODS_S[0] <= spec.period_s <= PERIODS_S[1]:
        raise SpecMismatch(
            f"period_s: expected a policy of {PERIODS_S[0]:g} to {PERIODS_S[1]:g} s a step, its "
            f"card says {spec.period_s:g} s"
        )
