"""Memory and work of a step are known from the file, and bounded, before anything runs."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.wm_core.contract.test_onnx_limits import model_with, refused
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_limits import check_limits
from wm_core.contract.onnx_operators import OPERATORS, OPSET


def ints(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def numbers(**values):
    return [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in values.items()]


HUGE = 1 << 20
FLOODS = {
    "ConstantOfShape": ([("ConstantOfShape", ["s"])], [ints("s", HUGE, HUGE)]),
    "Expand": ([("Expand", ["x", "s"])], [ints("s", HUGE * 64, 2)]),
    "Tile": ([("Tile", ["x", "s"])], [ints("s", HUGE, HUGE)]),
    "Pad": ([("Pad", ["x", "s"])], [ints("s", 0, HUGE, HUGE, 0)]),
    "Range": ([("Range", ["a", "b", "c"])], [*numbers(a=0, b=1 << 40, c=1)]),
    "OneHot": ([("OneHot", ["i", "d", "v"])], [*numbers(d=1 << 40), ints("i", 1), ints("v", 0)]),
    "Resize": ([("Resize", ["x", "", "", "s"])], [ints("s", HUGE, HUGE)]),
    "Gather": (
        [("Tile", ["x", "s"], "wide"), ("Gather", ["wide", "i"])],
        [ints("s", 1, 1 << 16), ints("i", *[0] * 4096)],
    ),
    "MatMul": (
        [("Expand", ["x", "s"], "a"), ("Reshape", ["a", "t"], "b"), ("MatMul", ["a", "b"])],
        [ints("s", 1 << 16, 2), ints("t", 2, 1 << 16)],
    ),
    "Add": (
        [("Tile", ["x", "s"], "a"), ("Reshape", ["a", "t"], "b"), ("Add", ["b", "a"])],
        [ints("s", 1, 1 << 16), ints("t", 1 << 17, 1)],
    ),
    "many small ones": (
        [("Expand", ["x", "s"], f"y{k}") for k in range(100)],
        [ints("s", 1 << 19, 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_a_file_of_a_kilobyte_cannot_ask_for_gigabytes(name):
    rows, weights = FLOODS[name]
    nodes = [
        helper.make_node(row[0], row[1], [row[2] if len(row) > 2 else "y"], name=str(at))
        for at, row in enumerate(rows)
    ]
    model = model_with(*nodes, weights=weights)
    assert model.ByteSize() < 40_000
    refused(model, "512 MB")


def test_sizes_do_not_follow_from_what_a_camera_sees():
    """Else a policy that is small while it is tried could ask for everything at a sign."""
    sized = [
        helper.make_node("Cast", ["x"], ["s"], to=TensorProto.INT64),
        helper.make_node("Squeeze", ["s"], ["t"]),
        helper.make_node("Expand", ["x", "t"], ["y"]),
    ]
    refused(model_with(*sized), "Expand 'y': a size is computed from what is observed")
    dynamic = model_with(helper.make_node("Identity", ["x"], ["y"]), inputs={"x": (1, None)})
    refused(dynamic, "inputs of a fixed shape")
    dynamic = model_with(helper.make_node("Identity", ["x"], ["y"]), inputs={"x": (1, "n")})
    refused(dynamic, "inputs of a fixed shape")


def test_sizes_that_the_file_computes_from_its_own_shapes_are_followed():
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "first"], ["rows"]),
        helper.make_node("Concat", ["rows", "three"], ["all"], axis=0),
        helper.make_node("ConstantOfShape", ["all"], ["y"]),
    ]
    weights = [*numbers(zero=0), ints("first", 0), ints("three", 3)]
    model = model_with(*nodes, weights=weights, inputs={"x": (5, 2)})
    assert check_limits(model.SerializeToString()).shapes["y"] == (5, 3)


def test_a_step_of_too_many_products_is_refused():
    many = [helper.make_node("MatMul", ["a", "a"], [f"y{k}"]) for k in range(40)]
    grown = helper.make_node("Expand", ["x", "s"], ["a"])
    model = model_with(
        grown, *many, weights=[ints("s", 1024, 1024)], inputs={"x": (1, 1)}, outputs=("y0",)
    )
    refused(model, "multiplications a step")


def test_declared_sizes_are_those_that_the_operators_make():
    model = model_with(helper.make_node("Identity", ["x"], ["y"]))
    for where in (model.graph.output, model.graph.value_info):
        kept = [*where]
        del where[:]
        where.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, (1 << 30, 2)))
        refused(model, r"'y' to be \(1, 2\), as its operators make it, it has it as")
        del where[:]
        where.extend(kept)


@pytest.mark.slow  # making the examples takes ten seconds
def test_shapes_are_those_that_the_definitions_of_the_operators_give():
    """The examples of ONNX itself, as far as their operators and types are ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    agreed, wrong = Counter(), []
    for case in cases:
        nodes = [] if case.model is None else case.model.graph.node
        if len(nodes) != 1 or nodes[0].op_type not in OPERATORS or nodes[0].domain:
            continue
        try:
            found = check_limits(_fixed(case).SerializeToString()).shapes
        except (PolicyRefused, NotImplementedError):  # types and attributes of later versions
            continue
        for value, answer in zip(case.model.graph.output, case.data_sets[0][1], strict=True):
            agreed[nodes[0].op_type] += 1
            if found[value.name] != np.shape(answer):
                wrong.append((case.name, found[value.name], np.shape(answer)))
    assert wrong == []
    assert {*OPERATORS} - {*agreed} <= {"CastLike"}
    assert agreed.total() > 700


def _fixed(case):
    """An example as a policy would hold it: its first input is observed, others are weights."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    model.ir_version = 8
    del model.opset_import[:]
    model.opset_import.add(domain="", version=OPSET)
    given = [*model.graph.input]
    del model.graph.input[:]
    for at, (value, array) in enumerate(zip(given, case.data_sets[0][0], strict=True)):
        array = np.asarray(array)
        if at == 0 and model.graph.node[0].op_type not in ("ConstantOfShape", "Range"):
            about = helper.make_tensor_type_proto(1, array.shape)
            value.type.tensor_type.shape.CopyFrom(about.tensor_type.shape)
            model.graph.input.append(value)
        else:
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return model
