"""Turns a policy's float32 graph into one whose large products run in 8 bits.

Static quantisation by ``onnxruntime.quantization``, with pairs of QuantizeLinear and
DequantizeLinear around each product: weights signed and symmetric, what flows unsigned, because
onnxruntime multiplies two signed sides without the processor's instructions for it where one
number feeds two products (five times slower, measured).  Two traps are avoided.
A weight on three axes, as a block-diagonal recurrence has, is quantised as a whole: by channel it
passes the quantiser and fails at run time.  The output of a matrix product stays float32, since a
norm follows it, which needs no 8 bits and loses by them.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization as ort

from wm_core.contract.card_check import Call
from wm_core.contract.errors import SettingsError
from wm_core.exporting.to_onnx import strip

SMALLEST = 1024  #: a product with fewer weights costs nothing in float32, and stays there
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

Feed = Mapping[str, np.ndarray]


def quantize(model: bytes, calibration: Iterable[Feed]) -> bytes:
    """Quantise the large products of a policy to 8 bits; its card stays as it was.

    Args:
        model: an ONNX file as ``PolicyExporter`` writes it.
        calibration: every input (1, ...) by name, as ``PolicyRunner.call`` takes them, for some
            hundreds of steps; they give the range of every number inside.

    Returns:
        The quantised ONNX file, of the same inputs and outputs.

    Raises:
        SettingsError: where there is nothing to quantise or nothing to calibrate on.
    """
    feeds = iter(calibration)
    first = next(feeds, None)
    if first is None:
        raise SettingsError("expected steps to calibrate the quantisation on, got none")
    proto = onnx.load_model_from_string(model)
    weights = {t.name: t for t in proto.graph.initializer}
    chosen = _name_products(proto, weights)
    if not chosen:
        raise SettingsError(
            f"nothing to quantise: no product of the policy has {SMALLEST} weights or more"
        )
    card = {entry.key: entry.value for entry in proto.metadata_props}
    # masked scores are infinite: their range is asked for though nothing quantises them
    with tempfile.TemporaryDirectory() as folder, _quiet(), np.errstate(invalid="ignore"):
        target = Path(folder) / "quantized.onnx"
        ort.quantize_static(
            proto,
            target,
            _Feeds(chain([first], feeds)),
            quant_format=ort.QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            extra_options=_options(weights),
        )
        quantized = onnx.load_model(target)
    # with the shapes of inner tensors, by which the runner cuts estimates apart
    quantized = onnx.shape_inference.infer_shapes(strip(quantized))
    onnx.helper.set_model_props(quantized, card)
    onnx.checker.check_model(quantized, full_check=True)
    data: bytes = quantized.SerializeToString(deterministic=True)
    return data


def unfused(model: bytes) -> Call:
    """Make a function that runs ``model`` operator by operator, as a plain runtime would.

    Nothing is fused to integer products: each DequantizeLinear gives float32 numbers.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model, sess_options=options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def call(feed: Feed) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(feed)), strict=True))

    return call


def _name_products(proto: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]) -> list[str]:
    """Name every node, because the quantiser knows them by name; list those to quantise."""
    chosen = []
    for number, node in enumerate(proto.graph.node):
        node.name = f"node_{number}"
        sizes = [np.prod(weights[name].dims) for name in node.input[1:2] if name in weights]
        if node.op_type in _PRODUCTS and sizes and sizes[0] >= SMALLEST:
            chosen.append(node.name)
    return chosen


def _options(weights: Mapping[str, onnx.TensorProto]) -> dict[str, Any]:
    whole = [{"quant_type": ort.QuantType.QInt8, "symmetric": True}]
    return {
        "ActivationSymmetric": False,
        "WeightSymmetric": True,
        "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
        "TensorQuantOverrides": {n: whole for n, t in weights.items() if len(t.dims) == 3},
    }


class _Feeds(ort.CalibrationDataReader):  # type: ignore[misc]
    """Hands the quantiser one step after the other."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantiser from recommending a preprocessing that the exporter did already.

    It also ranges tensors that it then leaves alone, such as scores masked by infinity.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield
    finally:
        root.setLevel(level)
