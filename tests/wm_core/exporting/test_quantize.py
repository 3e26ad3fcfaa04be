"""A graph in 8 bits is smaller, near its original, of plain operators, or refused."""

import collections

import numpy as np
import onnx
import pytest

from wm_core.contract.errors import SettingsError
from wm_core.contract.golden import read_golden, rollout
from wm_core.contract.runner import PolicyRunner
from wm_core.exporting.quantize import SMALLEST, quantize

pytestmark = pytest.mark.long


def steps_of(export):
    return list(rollout(read_golden(export.golden), PolicyRunner.from_bytes(export.onnx).card))


@pytest.fixture(scope="module")
def eight_bits(export):
    return quantize(export.onnx, [feed for feed, _ in steps_of(export)])


def test_it_is_less_than_a_third_of_the_file_and_has_the_same_card(export, eight_bits):
    assert len(eight_bits) < len(export.onnx) / 3
    card = PolicyRunner.from_bytes(eight_bits).card
    assert card == PolicyRunner.from_bytes(export.onnx).card


def test_it_answers_nearly_as_the_original(export, eight_bits):
    runner = PolicyRunner.from_bytes(eight_bits)
    off = [np.abs(runner.call(feed)["action"] - want["action"]) for feed, want in steps_of(export)]
    assert 0.0 < np.mean(off) < 0.02
    assert np.max(off) < 0.2


def test_a_weight_on_three_axes_has_one_scale_and_a_matrix_one_a_channel(export, eight_bits):
    proto = onnx.load_model_from_string(eight_bits)
    sizes = {t.name: list(t.dims) for t in proto.graph.initializer}
    scales = collections.defaultdict(set)
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in sizes:
            scales[len(sizes[node.input[0]])].add(len(sizes[node.input[1]]))
    assert scales[3] == {0}
    assert scales[2] == scales[4] == {1}


def test_small_products_stay_as_they_are(eight_bits):
    proto = onnx.load_model_from_string(eight_bits)
    sizes = {t.name: np.prod(t.dims) for t in proto.graph.initializer}
    floats = [n for n in proto.graph.node if n.op_type == "Gemm" and n.input[1] in sizes]
    assert floats
    assert all(sizes[node.input[1]] < SMALLEST for node in floats)


def test_nothing_to_calibrate_on_is_said(export):
    with pytest.raises(SettingsError, match="steps to calibrate"):
        quantize(export.onnx, [])


def test_nothing_to_quantise_is_said():
    graph = "<ir_version: 8, opset_import: ['': 18]> g (float[1] x) => (float[1] y) {y = Neg(x)}"
    model = onnx.parser.parse_model(graph.replace("'", '"')).SerializeToString()
    with pytest.raises(SettingsError, match="nothing to quantise"):
        quantize(model, [{"x": np.zeros(1, np.float32)}])
