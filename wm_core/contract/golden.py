"""Checks a policy's golden rollout: its proof that it acts here as it did at the trainer.

An archive of plain arrays: ``frame/<key>`` a camera frame and ``seen/<key>`` what the network
must see of it; ``in/<name>`` (T, ...) every input but the carry; ``out/<name>`` (T, ...) what the
trainer's own network answered.  Step t is given the carry that step t - 1 answered *there*, so
that one flipped draw cannot spoil the rest.  ``gap/<output>`` (T, S) says how near each draw of
that output was to a tie: only such a draw may come out differently.  The carry may be drawn, and
so may ``action``; what was drawn from a carry that fell the other way is not compared.
``scale/<output>`` (T, ...) is the size of what an output is a difference of, where that exceeds
the output itself.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from wm_core.contract.card import PolicyCard, TensorInfo
from wm_core.contract.errors import PolicyFailed, PolicyRefused, SpecMismatch
from wm_core.contract.image import to_network

PARITY = 1e-5  #: largest difference of an output, relative to its scale (at least 1)
TIE = 1e-4  #: a draw whose best two candidates are nearer than this may fall either way

Call = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def read_golden(data: bytes) -> dict[str, np.ndarray]:
    """Read the arrays (T, ...) of a golden archive by name; raises ``PolicyRefused``."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise PolicyRefused(f"golden rollout is not readable: {error}") from error


def check_golden(data: bytes, card: PolicyCard, call: Call) -> float:
    """Replay a golden rollout and compare every output with what torch gave.

    Args:
        data: the bytes of a ``policy.golden.npz``.
        card: of the policy, which names its inputs and outputs.
        call: runs the graph; every input (1, ...) by name to every output by name.

    Returns:
        The largest difference seen, relative to its scale.

    Raises:
        PolicyRefused: when the preprocessing of the frame differs in a single bit, an output by
            more than ``PARITY``, or a draw that was no tie.
    """
    golden = read_golden(data)
    try:
        _check_frames(golden, card)
        return _check_steps(golden, card, call)
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


def _check_steps(golden: Mapping[str, np.ndarray], card: PolicyCard, call: Call) -> float:
    recurrent, worst = {pair.output for pair in card.carry}, 0.0
    for t, (feed, want) in enumerate(rollout(golden, card)):
        worst = max(worst, _compare(t, golden, call(feed), want, recurrent))
    return worst


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


def _compare(
    t: int,
    golden: Mapping[str, np.ndarray],
    got: Mapping[str, np.ndarray],
    want: Mapping[str, np.ndarray],
    recurrent: set[str],
) -> float:
    """Return the largest relative difference of step ``t``, apart from what a tie decides."""
    sampled = [name for name in want if f"gap/{name}" in golden]
    compared = set(want) - set(sampled)
    flips = False
    for name in sorted(sampled, key=lambda name: name not in recurrent):
        if flips and name not in recurrent:
            continue
        flipped = np.any(np.rint(got[name]) != want[name], axis=-1).reshape(-1)
        if not flipped.any():
            continue
        gap = golden[f"gap/{name}"][t].reshape(-1)[flipped].max()
        if gap > TIE:
            raise PolicyRefused(
                f"golden step {t}: {name!r} was drawn differently where the choice was clear "
                f"(gap {gap:.1e}, ties end at {TIE:.0e})"
            )
        compared, flips = compared & recurrent, True
    worst = 0.0
    for name in sorted(compared):
        scale = np.maximum(1.0, np.abs(want[name]))
        if f"scale/{name}" in golden:
            scale = np.maximum(scale, golden[f"scale/{name}"][t])
        difference = float(np.max(np.abs(got[name] - want[name]) / scale))
        if not difference <= PARITY:
            raise PolicyRefused(
                f"golden step {t}: {name!r} differs by {difference:.1e} of its scale, "
                f"at most {PARITY:.0e} is accepted"
            )
        worst = max(worst, difference)
    return worst
