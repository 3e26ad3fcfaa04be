"""Reads what a person sends to a robot whose actions are choices: indices, or numbers."""

from __future__ import annotations

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec

ROUNDING = 1e-6  #: of numbers that a message carries as float32


def check_indices(command: np.ndarray, action: ActionSpec) -> None:
    """Raise ``SpecMismatch`` for an index (command_size,) of a choice that there is not."""
    if not np.array_equal(command, action.to_physical(action.from_physical(command))):
        raise SpecMismatch(
            f"command: expected whole numbers from 0 to {[n - 1 for n in action.sizes]}, the "
            f"index of each choice, got {command.tolist()}"
        )


def nearest_within(rows: np.ndarray, asked: np.ndarray, *, bounded: bool) -> int | None:
    """Find the row of ``rows`` (choices, n) that is nearest to what was asked for, (n,).

    ``bounded``: no element may be larger in magnitude than asked, or of the other sign, so that
    nothing moves faster than a person wants; None where every choice would.
    """
    apart = np.abs(rows - asked).sum(1)
    if bounded:
        more = (np.abs(rows) > np.abs(asked) + ROUNDING) | (rows * asked < 0)
        apart[more.any(1)] = np.inf
    nearest = int(apart.argmin())
    return nearest if np.isfinite(apart[nearest]) else None
