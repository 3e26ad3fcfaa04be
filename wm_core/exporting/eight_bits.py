"""Makes the 8-bit version of an exported policy, with a rollout and a tolerance of its own.

Its golden rollout holds what the 8-bit graph itself answered on the machine that wrote it; the
float network is no reference for it.  How far another machine may be off is measured, not chosen:
the same graph is run once with the runtime's integer arithmetic and once operator by operator in
float32, which is further apart than any two processors.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable

import numpy as np
import onnx
import torch

from wm_core.contract.card import PolicyCard, Tolerance
from wm_core.contract.card_check import Call
from wm_core.contract.errors import SettingsError
from wm_core.contract.golden import MAX_QUANTIZED, PARITY, TIE, flipped_draws, read_golden, rollout
from wm_core.contract.runner import PolicyRunner
from wm_core.exporting.exporter import Export
from wm_core.exporting.policy_module import PolicyStep
from wm_core.exporting.quantize import Feed, quantize, unfused
from wm_core.exporting.split import split_of
from wm_core.exporting.to_onnx import read_weights_sha256, with_card

MARGIN = 3.0  #: times what was measured between the two ways to compute is the tolerance
LEAST = Tolerance(largest=0.02, mean=0.01)  #: a few steps of 8 bits, of which 127 make a range


def make_int8(export: Export, step: PolicyStep, feeds: Iterable[Feed]) -> Export:
    """Make the 8-bit version of ``export``.

    Args:
        export: of the float32 policy.
        step: the network that it was exported from, with the same weights.
        feeds: every input (1, ...) by name at some hundreds of steps, to calibrate on.

    Returns:
        The 8-bit policy; its card says ``quantized`` and states the tolerance.

    Raises:
        SettingsError: where there is nothing to quantise or to calibrate on, or where the two
            ways to compute it are further apart than robots accept.
    """
    model = quantize(export.onnx, feeds)
    runner = PolicyRunner.from_bytes(model)
    golden = _golden(read_golden(export.golden), runner, step)
    tolerance = _tolerance(read_golden(golden), runner.card, unfused(model))
    if tolerance.largest > MAX_QUANTIZED:
        raise SettingsError(
            f"int8: expected answers within {MAX_QUANTIZED:g} of each other on any machine, they "
            f"may be {tolerance.largest:.2g} apart; export this policy in float32"
        )
    weights = read_weights_sha256(model)
    card = runner.card.model_copy(
        update={
            "quantized": "int8",
            "tolerance": tolerance,
            "weights_sha256": weights,
            "golden_sha256": hashlib.sha256(golden).hexdigest(),
            "split": split_of(onnx.load_model_from_string(model), runner.spec.inputs),
        }
    )
    return Export(with_card(model, card), golden, weights)


@torch.inference_mode()
def _golden(arrays: dict[str, np.ndarray], runner: PolicyRunner, step: PolicyStep) -> bytes:
    """Answer the inputs of a golden rollout with the 8-bit graph, along its own carry.

    How near a draw was to a tie is the float network's word for the same inputs; where the two
    drew differently, it was a tie.
    """
    card, names = runner.card, [info.name for info in step.outputs()]
    kept = {n: v for n, v in arrays.items() if n.split("/")[0] in ("spec", "frame", "seen", "in")}
    inputs = {n.removeprefix("in/"): v for n, v in kept.items() if n.startswith("in/")}
    carry, rows = runner.initial_carry(), dict[str, list[np.ndarray]]()
    for t in range(len(inputs["is_first"])):
        feed = {name: value[t : t + 1] for name, value in inputs.items()} | carry
        out = runner.call(feed)
        result = step.step(*(torch.from_numpy(feed[info.name]) for info in step.inputs()))
        own = {n: v.numpy() for n, v in zip(names, result.outputs, strict=True)}
        row = {f"out/{name}": value for name, value in out.items()}
        row |= {f"scale/{name}": value.numpy() for name, value in result.scales.items()}
        for name, gap in result.gaps.items():
            flipped = flipped_draws(name, out[name], own[name], card.spec.action)
            tied = np.where(flipped.reshape(gap.shape), np.float32(0.0), gap.numpy())
            row[f"gap/{name}"] = tied
        for name, value in row.items():
            rows.setdefault(name, []).append(value[0])
        carry = {pair.input: out[pair.output] for pair in card.carry}
    buffer = io.BytesIO()
    stacked = {name: np.stack(values) for name, values in rows.items()}
    np.savez_compressed(buffer, allow_pickle=False, **(kept | stacked))
    return buffer.getvalue()


def _tolerance(golden: dict[str, np.ndarray], card: PolicyCard, call: Call) -> Tolerance:
    """Measure how far ``call`` is off the rollout, and state ``MARGIN`` times that."""
    recurrent = {pair.output for pair in card.carry}
    off = dict[str, list[float]]()
    largest = widest = 0.0
    for t, (feed, want) in enumerate(rollout(golden, card)):
        got, flips = call(feed), False
        for name in sorted(want, key=lambda n: (f"gap/{n}" not in golden, n not in recurrent)):
            if flips and name not in recurrent:
                continue  # it follows from another draw
            if f"gap/{name}" in golden:
                flipped = flipped_draws(name, got[name], want[name], card.spec.action)
                gaps = golden[f"gap/{name}"][t].reshape(-1)[flipped]
                widest, flips = max([widest, *gaps.tolist()]), flips or bool(flipped.any())
                apart = flipped.astype(np.float32)
            else:
                scale = np.maximum(1.0, np.abs(want[name]))
                scale = np.maximum(
                    scale, golden[f"scale/{name}"][t] if f"scale/{name}" in golden else 0
                )
                apart = np.abs(got[name] - want[name]) / scale
                largest = max(largest, float(apart.max()))
            off.setdefault(name, []).append(float(apart.mean()))
    mean = max(float(np.mean(values)) for values in off.values())
    most = max(LEAST.largest, MARGIN * largest, MARGIN * widest * PARITY / TIE)
    return Tolerance(largest=most, mean=min(most, max(LEAST.mean, MARGIN * mean)))
