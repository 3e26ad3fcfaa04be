"""States for how many control steps an action is held: how long they are, and what is usual.

Published scores of the suite are made at these repeats.  A reward per control step is summed over
them, so returns stay comparable; the fewer decisions an episode has, the sooner they are learnt.
"""

from __future__ import annotations

from typing import Any

from sim import TASKS

_S = {
    "acrobot": 0.01, "ball_in_cup": 0.02, "cartpole": 0.01, "cheetah": 0.01, "finger": 0.02,
    "hopper": 0.02, "pendulum": 0.02, "quadruped": 0.02, "reacher": 0.02, "walker": 0.025,
    "seek": 0.1, "recall": 0.1,
}  # fmt: skip
#: control steps of an agent step, by the first part of a task's name.
#: cartpole, cheetah, finger, walker: PlaNet (arXiv:1811.04551, code) and CURL (arXiv:2004.04136,
#: table 4); ball_in_cup, reacher: CURL; the others: Dreamer (arXiv:1912.01603, appendix A)
_REPEATS = {
    "acrobot": 2, "ball_in_cup": 4, "cartpole": 8, "cheetah": 4, "finger": 2, "hopper": 2,
    "pendulum": 2, "quadruped": 2, "reacher": 4, "walker": 2,
}  # fmt: skip


def control_s(name: str) -> float | None:
    """Length of a control step of the task ``name`` in seconds; None for any other task."""
    return _of(_S, name)


def usual_repeat(name: str) -> int | None:
    """Control steps per agent step of the task ``name`` in published work; None for no such."""
    return _of(_REPEATS, name)


def _of(table: dict[str, float] | dict[str, int], name: str) -> Any:
    known = (key for key in table if name in TASKS and f"{name}_".startswith(f"{key}_"))
    return next((table[key] for key in known), None)
