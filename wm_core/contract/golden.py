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

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from wm_core.contract.card import PolicyCard, TensorInfo, Tolerance
from wm_core.contract.card_check import Call, check_same_spec
from wm_core.contract.errors import PolicyFailed, PolicyRefused, SettingsError, SpecMismatch
from wm_core.contract.image import to_network

MAX_UNPACKED_BYTES = 1_000_000_000
PARITY = 1e-5  #: largest difference of an output, relative to its scale (at least 1)
TIE = 1e-4  #: a draw whose best two candidates are nearer than this may fall either way
MAX_QUANTIZED = 0.15  #: largest difference accepted of a quantised policy, unless its owner says


def read_golden(data: bytes) -> dict[str, np.ndarray]:
    """Read the arrays (T, ...) of a golden archive by name; raises ``PolicyRefused``."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
        if unpacked > MAX_UNPACKED_BYTES:
            raise PolicyRefused(
                f"golden rollout: at most {MAX_UNPACKED_BYTES} bytes, unpacked it has {unpacked}"
            )
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise PolicyRefused(f"golden rollout is not readable: {error}") from error


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
    golden, limit = read_golden(data), accepted(card, max_tolerance)
    try:
        if "spec" in golden:
            check_same_spec(golden["spec"], card)
        _check_frames(golden, card)
        return _Comparison(golden, card, limit).of(call)
    except KeyError as error:
        raise PolicyRefused(f"golden rollout lacks {error.args[0]!r}") from error
    except PolicyFailed as error:
        raise PolicyRefused(f"golden rollout: {error}") from error


def _check_frames(golden: Mapping[str, np.ndarray], card: PolicyCard) -> None:
    for key, image in card.spec.images.items():
        try:
            seen = to_network(golden[f"frame/{key}"], image)
        except SpecMismatch as error:
            raise PolicyRefused(f"golden frame of {key!r}: {error}") from error
        if not np.array_equal(seen, golden[f"seen/{key}"]):
            raise PolicyRefused(
                f"preprocessing of {key!r} differs from the trainer's: expected bit-equal pixels; "
                f"use the same version of this package on both sides"
            )


def rollout(
    golden: Mapping[str, np.ndarray], card: PolicyCard
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Yield every step of a golden rollout: all inputs (1, ...) and all outputs (1, ...) by name.

    Args:
        golden: the arrays (T, ...) of the archive, from ``read_golden``.
        card: of the policy, which names its inputs and outputs.

    Raises:
        PolicyRefused: when an array has another shape or dtype than the card says.
        KeyError: when one is missing.
    """
    carried = {pair.input: pair.output for pair in card.carry}
    steps = len(golden["in/is_first"])
    if steps == 0:
        raise PolicyRefused("golden rollout is empty: expected at least one step")
    inputs = {
        i.name: _column(golden, f"in/{i.name}", i, steps)
        for i in card.inputs
        if i.name not in carried
    }
    expected = {i.name: _column(golden, f"out/{i.name}", i, steps) for i in card.outputs}
    previous = {i.name: np.zeros(i.shape, np.float32) for i in card.inputs if i.name in carried}
    for t in range(steps):
        want = {name: value[t][None] for name, value in expected.items()}
        yield {name: value[t][None] for name, value in inputs.items()} | previous, want
        previous = {name: want[output] for name, output in carried.items()}


def _column(
    golden: Mapping[str, np.ndarray], name: str, info: TensorInfo, steps: int
) -> np.ndarray:
    """Take one input or output of every step, (T, ...), in the card's shape and dtype."""
    column, shape = golden[name], (steps, *info.shape[1:])
    if column.shape != shape or column.dtype != info.dtype:
        raise PolicyRefused(
            f"golden rollout's {name!r}: expected {shape} {info.dtype}, "
            f"got {column.shape} {column.dtype}"
        )
    return column


class _Comparison:
    """Compares the answers to a golden rollout with those in it, within ``limit``."""

    def __init__(
        self, golden: Mapping[str, np.ndarray], card: PolicyCard, limit: Tolerance
    ) -> None:
        self._golden, self._card, self._limit = golden, card, limit
        self._recurrent = {pair.output for pair in card.carry}
        self._tie = TIE * limit.largest / PARITY  # what moves the answers moves the draws too
        self._off: dict[str, list[float]] = {info.name: [] for info in card.outputs}

    def of(self, call: Call) -> float:
        """Replay every step; the largest relative difference, apart from what a tie decides."""
        worst = 0.0
        for t, (feed, want) in enumerate(rollout(self._golden, self._card)):
            worst = max(worst, self._compare(t, call(feed), want))
        for name, off in self._off.items():
            # a float32 policy is bound at each step alone: there, a tie is one draw in thousands
            mean = float(np.mean(off)) if off and self._card.tolerance is not None else 0.0
            if not mean <= self._limit.mean:
                raise PolicyRefused(
                    f"golden rollout: {name!r} differs by {mean:.1e} of its scale on average, "
                    f"at most {self._limit.mean:.0e} is accepted{self._advice}"
                )
        return worst

    @property
    def _advice(self) -> str:
        if not self._card.quantized:
            return ""
        return (
            f" of this {self._card.quantized} policy: its arithmetic differs here, so export it "
            "in float32, or raise max_tolerance if you have seen it act well"
        )

    def _compare(
        self, t: int, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]
    ) -> float:
        """Return the largest relative difference of step ``t``, apart from what a tie decides."""
        golden, recurrent = self._golden, self._recurrent
        sampled = [name for name in want if f"gap/{name}" in golden]
        compared = set(want) - set(sampled)
        flips = False
        for name in sorted(sampled, key=lambda name: name not in recurrent):
            if flips and name not in recurrent:
                continue
            flipped = np.any(np.rint(got[name]) != want[name], axis=-1).reshape(-1)
            self._off[name].append(float(flipped.mean()))
            if not flipped.any():
                continue
            gap = golden[f"gap/{name}"][t].reshape(-1)[flipped].max()
            if not gap <= self._tie:
                raise PolicyRefused(
                    f"golden step {t}: {name!r} was drawn differently where the choice was clear "
                    f"(gap {gap:.1e}, ties end at {self._tie:.0e}){self._advice}"
                )
            compared, flips = compared & recurrent, True
        return max(
            (self._difference(t, name, got, want) for name in sorted(compared)), default=0.0
        )

    def _difference(
        self, t: int, name: str, got: Mapping[str, np.ndarray], want: Mapping[str, np.ndarray]
    ) -> float:
        """Return the largest relative difference of one output at step ``t``."""
        scale = np.maximum(1.0, np.abs(want[name]))
        if f"scale/{name}" in self._golden:
            scale = np.maximum(scale, self._golden[f"scale/{name}"][t])
        off = np.abs(got[name] - want[name]) / scale
        difference = float(np.max(off))
        if not difference <= self._limit.largest:
            raise PolicyRefused(
                f"golden step {t}: {name!r} differs by {difference:.1e} of its scale, "
                f"at most {self._limit.largest:.0e} is accepted{self._advice}"
            )
        self._off[name].append(float(off.mean()))
        return difference
