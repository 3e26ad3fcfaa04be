"""Counts the stored steps that may not be learnt from, and names the input at fault."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from wm_core.contract.errors import WmError
from wm_core.contract.step import MAX_MAGNITUDE, MAX_PERIOD_S, MAX_REWARD, usable
from wm_core.store.index import Index, load_index, step_number
from wm_core.store.ledger import ChunkRow

_LIMITS = {"reward": MAX_REWARD, "period_s": MAX_PERIOD_S}


class InvalidSteps:
    """Counts invalid steps by reason and by input, over all indexes that it is given.

    Attributes:
        by_reason: steps by what is not finite or too large: observation, reward, period, or
            action, which includes the answer of a policy that could not be sent.
        by_input: the same by the name of the input.
        seen: how many steps there were, valid or not.
    """

    def __init__(self) -> None:
        self.by_reason: Counter[str] = Counter()
        self.by_input: Counter[str] = Counter()
        self.seen = 0
        self._examples: dict[str, str] = {}

    def add(self, index: Index) -> None:
        """Count the steps of one chunk."""
        self.seen += len(index.steps)
        steps = index.steps[~step_number(index.steps, "is_valid")]
        if not len(steps):
            return
        unexplained = np.ones(len(steps), bool)
        for reason, name, bad in _faults(steps, index):
            here = bad & unexplained
            if here.any():
                self.by_reason[reason] += int(here.sum())
                self.by_input[name] += int(here.sum())
                self._examples.setdefault(name, _example(steps, name, here))
                unexplained &= ~bad
        if unexplained.any():
            self.by_reason["action"] += int(unexplained.sum())
            self.by_input["the policy's answer"] += int(unexplained.sum())

    @property
    def total(self) -> int:
        return self.by_reason.total()

    @property
    def share(self) -> float:
        """Share of all steps that are invalid, 0 .. 1."""
        return self.total / self.seen if self.seen else 0.0

    def worst(self) -> str:
        """Name the input that makes most steps invalid, with an example; empty where none does."""
        if not self.by_input:
            return ""
        (name, count), *_ = self.by_input.most_common(1)
        text = f"{name} in {count} of {self.seen} steps"
        example = self._examples.get(name, "")
        return f"{text} ({example})" if example else text


def invalid_in(root: Path, rows: Iterable[ChunkRow]) -> InvalidSteps:
    """Count the invalid steps in the chunks of ``rows`` that can be read; nothing is written."""
    found = InvalidSteps()
    for row in rows:
        with contextlib.suppress(OSError, ValueError, WmError):
            found.add(load_index(root, row, keep=False))
    return found


def _faults(steps: np.ndarray, index: Index) -> list[tuple[str, str, np.ndarray]]:
    """(reason, input, (n,) bool where that is at fault) of invalid steps (n,)."""
    vectors = [
        (
            "observation",
            f"observation {key!r}",
            ~_within(steps[_column(steps, key)], MAX_MAGNITUDE),
        )
        for key in index.spec.vectors
    ]
    action = ("action", "action", ~usable(index.spec.action, {}, steps["action"]))
    numbers = [
        (name.removesuffix("_s"), name, ~_within(steps[name], limit))
        for name, limit in _LIMITS.items()
    ]
    return [*vectors, action, *numbers]


def _within(values: np.ndarray, limit: float) -> np.ndarray:
    """(n,) whether all numbers of each row of ``values`` (n, ...) are at most ``limit``."""
    good = np.abs(values) <= limit  # False for NaN
    return np.asarray(good.reshape(len(good), -1).all(1))


def _example(steps: np.ndarray, name: str, bad: np.ndarray) -> str:
    """The first number at fault of the input ``name``, where there is one to show."""
    field = _field(steps, name)
    numbers = np.asarray(steps[field][bad][0], np.float64).reshape(-1)
    limit = 1.0 if field == "action" else _LIMITS.get(field, MAX_MAGNITUDE)
    at = int(np.argmax(~(np.abs(numbers) <= limit)))
    number = f"number {at} was " if len(numbers) > 1 else ""
    return f"{number}{numbers[at]:.6g}"


def _field(steps: np.ndarray, name: str) -> str:
    kind, _, key = name.partition(" ")
    return _column(steps, key[1:-1]) if kind == "observation" else kind


def _column(steps: np.ndarray, key: str) -> str:
    """The field of ``steps`` with the numbers of a vector, or with the worst of a large one."""
    whole = f"vector.{key}"
    return whole if whole in (steps.dtype.names or ()) else f"worst.{key}"
