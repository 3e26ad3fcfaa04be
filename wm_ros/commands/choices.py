"""Holds what choices command, and reads what a person sends instead: indices, or numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec

ROUNDING = 1e-6  #: of numbers that a message carries as float32


class ChoiceTable:
    """Holds the numbers that each choice of a robot file commands, channel by channel.

    Every channel has an index of its own: a base may stop while a gripper stays closed, though no
    choice says both.

    Args:
        rows: of each channel the numbers of every choice, (choices, n).
        moving: of each channel whether it takes velocities or efforts, which zeros stop.

    Attributes:
        stop: index of the first choice that is zero in every channel that is ``moving``; NaN
            where there is none.
    """

    def __init__(self, rows: Sequence[np.ndarray], moving: Sequence[bool]) -> None:
        self._rows = tuple(rows)
        self._moving = any(moving)
        zero = [~own.any(1) for own, moves in zip(rows, moving, strict=True) if moves]
        stops = np.flatnonzero(np.all(zero, axis=0)) if zero else np.zeros(0)
        self.stop = float(stops[0]) if stops.size else math.nan

    def check(self, names: Sequence[str]) -> None:
        """Raise ``SpecMismatch`` where none of the choices ``names`` stops the robot."""
        if self._moving and math.isnan(self.stop):
            raise SpecMismatch(
                "choices: expected one that stops, with zeros in every channel of velocities or "
                f"efforts, got {[*names]} without such; add one to the robot file"
            )

    def numbers(self, i: int, index: float) -> np.ndarray:
        """Give the numbers (n,) that the choice ``index`` commands channel ``i``."""
        return self._rows[i][round(index)]

    def choice_of(self, indices: np.ndarray) -> int | None:
        """Find the choice that commands every channel what its own index does.

        Args:
            indices: (channels,) by which each was sent its numbers; NaN: it was sent nothing.

        Returns:
            The choice; None where no choice alone commands all of it.
        """
        alike = np.ones(len(self._rows[0]), bool)
        pairs = zip(self._rows, indices, strict=True)
        known = [(own, round(i)) for own, i in pairs if np.isfinite(i)]
        for own, index in known:
            alike &= (own == own[index]).all(1)
        chosen = [index for _, index in known if alike[index]]  # before others with equal numbers
        return next(iter([*chosen, *np.flatnonzero(alike).tolist()]), None)


def check_one_of(names: Sequence[str], action: ActionSpec, what: str) -> None:
    """Raise ``SpecMismatch`` unless an action is one of the choices of a robot file.

    Args:
        names: of the file's choices.
        action: of a policy.
        what: whose action it is, for the error.
    """
    if action.groups:
        raise SpecMismatch(
            f"the robot's file offers one of the choices {list(names)}; the action of {what} "
            f"has {action.kind} at once, which a robot file cannot say: send their indices "
            "by command_type index, without a robot file"
        )
    if not action.discrete or action.size != len(names):
        kind = "choices" if action.discrete else "elements, none of them a choice"
        raise SpecMismatch(
            f"the robot offers {len(names)} choices {list(names)}; the action of {what} has "
            f"{action.size} {kind}"
        )
    if action.names and action.names != tuple(names):
        raise SpecMismatch(
            f"the robot's choices are {list(names)}, those of {what} are {list(action.names)}"
        )


def check_sent_whole(
    label: str, safe: str | Sequence[float], limits: Mapping[str, Sequence[float]]
) -> None:
    """Raise ``SpecMismatch`` for what cannot hold of a choice, which is sent whole and at once.

    Args:
        label: of the channel, for the error.
        safe: word of its safe action, or the numbers of a posture.
        limits: its limits by the names of their settings; empty where none is stated.
    """
    for name, limit in limits.items():
        if limit:
            raise SpecMismatch(
                f"{label}: expected no {name} where the action is a choice, got {[*limit]}: a "
                "choice is sent whole and at once, so the limit would not hold; leave it out"
            )
    if not isinstance(safe, str):
        raise SpecMismatch(
            f"{label}: expected the safe action zero, hold or none where the action is a choice, "
            f"got the posture {[*safe]}: no choice leads there slowly"
        )


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
