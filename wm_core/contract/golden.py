"""Checks a policy's golden rollout: its proof that it acts here as it did at the trainer.

An archive of plain arrays: ``frame/<key>`` a camera frame and ``seen/<key>`` what the network
must see of it; ``in/<name>`` (T, ...) every input but the carry; ``out/<name>`` (T, ...) what the
trainer's own network answered.  Step t is given the carry that step t - 1 answered *there*, so
that one flipped draw cannot spoil the rest.  ``gap/<output>`` (T, S) says how near each draw of
that output was to a tie: only such a draw may come out differently.  The carry may be drawn, and
so may ``action``; what was drawn from a carry that fell the other way is not compared.
``spec`` is the JSON of what it was exported for, as bytes (n,) uint8; old archives lack it.
``scale/<output>`` (T, ...) is the size of what an output is a difference of, where that exceeds
the output itself.

A float32 policy must answer as its network did, to ``PARITY``.  One of reduced precision states
in its card how far other machines may answer from the one that wrote the rollout, at most and on
average; the robot's owner bounds both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import NamedTuple

import numpy as np

from wm_core.contract.card import PolicyCard, TensorInfo, Tolerance
from wm_core.contract.card_check import Call, check_same_spec
from wm_core.contract.errors import PolicyFailed, PolicyRefused, SettingsError, SpecMismatch
from wm_core.contract.golden_archive import Column, open_golden, said
from wm_core.contract.golden_archive import read_golden as read_golden
from wm_core.contract.image import to_network
from wm_core.contract.spec import ActionSpec

PARITY = 1e-5  #: largest difference of an output, relative to its scale (at least 1)
TIE = 1e-4  #: a draw whose best two candidates are nearer than this may fall either way
MAX_QUANTIZED = 0.15  #: largest difference accepted of a quantised policy, unless its owner says
MAX_STEPS = 100_000
MAX_TIES = 0.01  #: share of a float32 policy's draws that may fall the other way at a tie
MAX_ESTIMATE_SCALE = 1e9  #: of ``value``, which decides nothing: bins of symexp reach 5e8

_Arrays = Mapping[str, np.ndarray | Column]


def accepted(card: PolicyCard, max_tolerance: float | None = None) -> Tolerance:
    """Bound the tolerance that a card asks for by what the robot's owner accepts.

    Args:
        card: of the policy; where it states no tolerance, ``PARITY`` holds.
        max_tolerance: largest difference that the owner accepts, relative to an output's scale;
            None: ``PARITY``, or ``MAX_QUANTIZED`` for a policy that says it is quantised.

    Raises:
        SettingsError: where ``max_tolerance`` is no number above 0.
    """
    bound = max_tolerance
    if bound is None:
        bound = MAX_QUANTIZED if card.quantized else PARITY
    if not 0.0 < bound < np.inf:
        raise SettingsError(f"max_tolerance: expected a number above 0, got {bound}")
    asked = card.tolerance or Tolerance(largest=PARITY, mean=PARITY)
    largest = min(asked.largest, bound)
    return Tolerance(largest=largest, mean=min(asked.mean, largest))


def check_golden(
    data: bytes, card: PolicyCard, call: Call, *, max_tolerance: float | None = None
) -> float:
    """Replay a golden rollout and compare every output with what was answered at the trainer.

    Args:
        data: the bytes of a ``policy.golden.npz``.
        card: of the policy, which names its inputs and outputs.
        call: runs the graph; every input (1, ...) by name to every output by name.
        max_tolerance: see ``accepted``.

    Returns:
        The largest difference seen, relative to its scale.

    Raises:
        PolicyRefused: when the preprocessing of the frame differs in a single bit, an output by
            more than ``accepted``, at once or on average, or a draw that was no tie.
    """
    golden, limit = open_golden(data), accepted(card, max_tolerance)
    try:
        if "spec" in golden:
            check_same_spec(golden["spec"].whole(), card)
        _check_frames(golden, card)
        return _Comparison(golden, card, limit).of(call)
    except PolicyRefused:
        raise
    except KeyError as error:
        raise PolicyRefused(f"golden rollout lacks {error.args[0]!r}") from error
    except PolicyFailed as error:
        raise PolicyRefused(f"golden rollout: {error}") from error
    except Exception as error:  # whatever odd arrays make of the arithmetic
        raise PolicyRefused(f"golden rollout is not usable: {said(error)}") from error


def _check_frames(golden: Mapping[str, Column], card: PolicyCard) -> None:
    for key, image in card.spec.images.items():
        try:
            seen = to_network(golden[f"frame/{key}"].whole(), image)
        except SpecMismatch as error:
            raise PolicyRefused(f"golden frame of {key!r}: {error}") from error
        if not np.array_equal(seen, golden[f"seen/{key}"].whole()):
            raise PolicyRefused(
                f"preprocessing of {key!r} differs from the trainer's: expected bit-equal pixels; "
                f"use the same version of this package on both sides"
            )


def flipped_draws(name: str, got: np.ndarray, want: np.ndarray, action: ActionSpec) -> np.ndarray:
    """Tell which draws (S,) bool of an output fell otherwise than they did at the trainer.

    Args:
        name: of the output.
        got: (1, ..., K) one-hot draws; the action: (1, A), one or several choices.
        want: the same at the trainer.
        action: spec of the action.
    """
    differs = np.rint(got) != want
    if name == "action" and action.groups:
        return np.logical_or.reduceat(differs.reshape(-1), action.begins)
    return np.asarray(np.any(differs, axis=-1).reshape(-1))


class _Moment(NamedTuple):
    """One step of a golden rollout, (1, ...) each, by name."""

    feed: dict[str, np.ndarray]
    want: dict[str, np.ndarray]
    gaps: dict[str, np.ndarray]  #: (S,) of each output that is drawn
    scales: dict[str, np.ndarray]


def rollout(
    golden: _Arrays, card: PolicyCard
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Yield every step of a golden rollout: all inputs (1, ...) and all outputs (1, ...) by name.

    Args:
        golden: the arrays (T, ...) of the archive, from ``read_golden``.
        card: of the policy, which names its inputs and outputs.

    Raises:
        PolicyRefused: when an array has another shape or dtype than the card says.
        KeyError: when one is missing.
    """
    for moment in _moments(golden, card):
        yield moment.feed, moment.want


def _moments(golden: _Arrays, card: PolicyCard) -> Iterator[_Moment]:
    carried = {pair.input: pair.output for pair in card.carry}
    steps = len(golden["in/is_first"])
    if not 0 < steps <= MAX_STEPS:
        raise PolicyRefused(
            f"golden rollout is {'too long' if steps else 'empty'}: expected 1 to {MAX_STEPS} "
            f"steps, got {steps}"
        )
    inputs = [
        _rows(golden, f"in/{i.name}", i, steps) for i in card.inputs if i.name not in carried
    ]
    expected = [_rows(golden, f"out/{i.name}", i, steps) for i in card.outputs]
    gaps = [_beside(golden, f"gap/{i.name}", i, steps) for i in card.outputs]
    scales = [_beside(golden, f"scale/{i.name}", i, steps) for i in card.outputs]
    names = [i.name for i in card.inputs if i.name not in carried]
    answers = [i.name for i in card.outputs]
    previous = {i.name: np.zeros(i.shape, np.float32) for i in card.inputs if i.name in carried}
    for ins, outs, near, wide in zip(
        _together(inputs), _together(expected), _together(gaps), _together(scales), strict=True
    ):
        want = {name: row[None] for name, row in zip(answers, outs, strict=True)}
        feed = {name: row[None] for name, row in zip(names, ins, strict=True)} | previous
        yield _Moment(
            feed,
            want,
            {name: row for name, row in zip(answers, near, strict=True) if row.size},
            {name: row for name, row in zip(answers, wide, strict=True) if row.size},
        )
        previous = {name: want[output] for name, output in carried.items()}


def _together(columns: list[Iterable[np.ndarray]]) -> Iterator[tuple[np.ndarray, ...]]:
    return zip(*columns, strict=True)


def _rows(golden: _Arrays, name: str, info: TensorInfo, steps: int) -> Iterable[np.ndarray]:
    """Take one input or output of every step, (T, ...), in the card's shape and dtype."""
    column, shape = golden[name], (steps, *info.shape[1:])
    if column.shape != shape or column.dtype != info.dtype:
        raise PolicyRefused(
            f"golden rollout's {name!r}: expected {shape} {info.dtype}, "
            f"got {column.shape} {column.dtype}"
        )
    return column


def _beside(golden: _Arrays, name: str, info: TensorInfo, steps: int) -> Iterable[np.ndarray]:
    """Take what stands beside an output at every step, no larger than that; empty where none."""
    if name not in golden:
        return repeat(np.empty(0, np.float32), steps)
    column, most = golden[name], math.prod(info.shape)
    if len(column) != steps or not 0 < math.prod(column.shape[1:]) <= most:
        raise PolicyRefused(
            f"golden rollout's {name!r}: expected {steps} rows of 1 to {most} numbers, got "
            f"{column.shape}"
        )
    return column


class _Comparison:
    """Compares the answers to a golden rollout with those in it, within ``limit``.

    What the rollout says of itself excuses little: a ``gap`` a few draws, a ``scale`` no more than
    the card's own range of the command, and ``value``, which decides nothing.
    """

    def __init__(self, golden: _Arrays, card: PolicyCard, limit: Tolerance) -> None:
        self._golden, self._card, self._limit = golden, card, limit
        self._recurrent = {pair.output for pair in card.carry}
        self._tie = TIE * limit.largest / PARITY  # what moves the answers moves the draws too
        self._off: dict[str, list[float]] = {info.name: [] for info in card.outputs}
        self._draws, self._flipped = dict[str, int](), dict[str, int]()
        action = card.spec.action
        self._scales: dict[str, np.ndarray] = {"value": np.array(MAX_ESTIMATE_SCALE)}
        if not action.discrete:
            self._scales["command"] = 1.001 * np.subtract(action.high, action.low)

    def of(self, call: Call) -> float:
        """Replay every step; the largest relative difference, apart from what a tie decides."""
        worst = 0.0
        for t, moment in enumerate(_moments(self._golden, self._card)):
            self._check_scales(moment.scales)
            worst = max(worst, self._compare(t, call(moment.feed), moment))
        for name, off in self._off.items():
            # a float32 policy is bound at each step alone: there, a tie is one draw in thousands
            mean = float(np.mean(off)) if off and self._card.tolerance is not None else 0.0
            if not mean <= self._limit.mean:
                raise PolicyRefused(
                    f"golden rollout: {name!r} differs by {mean:.1e} of its scale on average, "
                    f"at most {self._limit.mean:.0e} is accepted{self._advice}"
                )
        for name, flipped in self._flipped.items():
            most = max(1, math.ceil(MAX_TIES * self._draws[name]))
            if flipped > most and not self._card.quantized:
                raise PolicyRefused(
                    f"golden rollout: {flipped} of {self._draws[name]} draws of {name!r} fell the "
                    f"other way, at most {most} can have been ties"
                )
        return worst

    def _check_scales(self, scales: Mapping[str, np.ndarray]) -> None:
        for name, scale in scales.items():
            most = self._scales.get(name, np.zeros(1))
            if not ((scale >= 0.0) & (scale <= most)).all():
                raise PolicyRefused(
                    f"golden rollout: its scale of {name!r} may be at most {most}, it is {scale}"
                )

    @property
    def _advice(self) -> str:
        if not self._card.quantized:
            return ""
        return (
            f" of this {self._card.quantized} policy: its arithmetic differs here, so export it "
            "in float32, or raise max_tolerance if you have seen it act well"
        )

    def _compare(self, t: int, got: Mapping[str, np.ndarray], moment: _Moment) -> float:
        """Return the largest relative difference of step ``t``, apart from what a tie decides."""
        want, recurrent = moment.want, self._recurrent
        compared = set(want) - {*moment.gaps}
        flips, worst = False, 0.0
        for name in sorted(moment.gaps, key=lambda name: name not in recurrent):
            if flips and name not in recurrent:
                continue
            flipped = self._flips(t, name, got[name], moment)
            if flipped.any():
                compared, flips = compared & recurrent, True
            # a draw that fell as it did there is a whole number on both sides
            off = np.abs(got[name] - np.rint(got[name])).max()
            if not off <= self._limit.largest:
                raise PolicyRefused(
                    f"golden step {t}: {name!r} is said to be drawn, expected whole numbers, it "
                    f"is off by {off:.1e}"
                )
        for name in sorted(compared):
            worst = max(worst, self._difference(t, name, got, moment))
        return worst

    def _flips(self, t: int, name: str, got: np.ndarray, moment: _Moment) -> np.ndarray:
        """Tell which draws (S,) of ``got`` (1, ...) fell otherwise; raises where it was clear."""
        gaps = moment.gaps[name].reshape(-1)
        flipped = flipped_draws(name, got, moment.want[name], self._card.spec.action)
        self._off[name].append(float(flipped.mean()))
        self._draws[name] = self._draws.get(name, 0) + flipped.size
        self._flipped[name] = self._flipped.get(name, 0) + int(flipped.sum())
        if flipped.any() and not (gap := gaps[flipped].max()) <= self._tie:
            raise PolicyRefused(
                f"golden step {t}: {name!r} was drawn differently where the choice was clear "
                f"(gap {gap:.1e}, ties end at {self._tie:.0e}){self._advice}"
            )
        return flipped

    def _difference(
        self, t: int, name: str, got: Mapping[str, np.ndarray], moment: _Moment
    ) -> float:
        """Return the largest relative difference of one output at step ``t``."""
        want = moment.want[name]
        scale = np.maximum(1.0, np.abs(want))
        if name in moment.scales:
            scale = np.maximum(scale, moment.scales[name])
        off = np.abs(got[name] - want) / scale
        difference = float(np.max(off))
        if not difference <= self._limit.largest:
            raise PolicyRefused(
                f"golden step {t}: {name!r} differs by {difference:.1e} of its scale, "
                f"at most {self._limit.largest:.0e} is accepted{self._advice}"
            )
        self._off[name].append(float(off.mean()))
        return difference
