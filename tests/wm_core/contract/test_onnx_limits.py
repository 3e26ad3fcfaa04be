"""A policy's file holds what this project writes, in one encoding, or it is refused."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_layers import LAYER_RULES
from wm_core.contract.onnx_limits import check_limits
from wm_core.contract.onnx_operators import OPERATORS, OPSET
from wm_core.contract.onnx_shapes import RULES
from wm_core.contract.runner import PolicyRunner

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)


def model_with(*nodes, weights=(), inputs=None, outputs=("y",)):
    """A file of some operators that read ``x`` (1, 2) and answer ``y``."""
    given = {"x": (1, 2)} if inputs is None else inputs
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in given.items()]
    answers = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    graph = helper.make_graph([*nodes], "policy", infos, answers, [*weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def refused(proto, said):
    with pytest.raises(PolicyRefused, match=said):
        check_limits(proto if isinstance(proto, bytes) else proto.SerializeToString())


def external(name="secret"):
    """A tensor whose numbers are to be read from another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[40])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


# ----------------------------------------------------------------- files of the machine


def constant(**fields):
    """A Constant whose one attribute is made of ``fields`` of AttributeProto."""
    node = helper.make_node("Constant", [], ["y"])
    node.attribute.append(AttributeProto(name="value", **fields))
    return model_with(node)


SPARSE = onnx.SparseTensorProto(
    values=external(),
    indices=TensorProto(name="at", data_type=TensorProto.INT64, dims=[40], int64_data=range(40)),
    dims=[40],
)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"t": external(), "type": AttributeProto.TENSOR}, "external data"),
        ({"tensors": [external()], "type": AttributeProto.TENSORS}, "no field 10"),
        ({"sparse_tensor": SPARSE, "type": AttributeProto.SPARSE_TENSOR}, "sparse"),
        ({"sparse_tensors": [SPARSE], "type": AttributeProto.SPARSE_TENSORS}, "sparse"),
        ({"s": b"/etc/passwd", "type": AttributeProto.STRING}, "'value' of kind 's'"),
        ({"ref_attr_name": "x", "type": AttributeProto.TENSOR}, "no field 21"),
        ({"i": 3, "f": 1.0, "type": AttributeProto.INT}, "one value of their type"),
        ({"i": 3, "type": AttributeProto.FLOAT}, "one value of their type"),
        ({"i": 3}, "one value of their type"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
def test_no_attribute_leads_to_another_file_or_hides_a_value(fields, said):
    refused(constant(**fields), said)


def test_no_weight_lies_in_another_file_or_is_sparse():
    identity = helper.make_node("Identity", ["x"], ["y"])
    refused(model_with(identity, weights=[external()]), "external data")
    located = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    located.data_location = TensorProto.EXTERNAL
    refused(model_with(identity, weights=[located]), "external data")
    sparse = model_with(identity)
    sparse.graph.sparse_initializer.append(SPARSE)
    refused(sparse, "sparse")


# ----------------------------------------------------------------- one encoding


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def longer(value):
    """The same number in a byte more than it needs."""
    short = varint(value)
    return bytes([*short[:-1], short[-1] | 0x80, 0])


def field(number, wire, content):
    head = varint(number << 3 | wire)
    return head + (varint(len(content)) + content if wire == BYTES else content)


def encoded(message):
    """(number, wire type, content, whole descriptor) of each field, nested messages as bytes."""
    for about, value in message.ListFields():
        for one in value if about.is_repeated else [value]:
            if about.message_type is not None:
                yield about, BYTES, one.SerializeToString(), one
            elif about.cpp_type in (about.CPPTYPE_STRING,):
                yield about, BYTES, one.encode() if isinstance(one, str) else one, None
            elif about.cpp_type == about.CPPTYPE_FLOAT:
                yield about, FIXED32, np.float32(one).tobytes(), None
            else:
                yield about, VARINT, varint(one & (1 << 64) - 1), None


def spoilt(message, above=""):
    """Every file in which one field of one message, at any depth, is written in another way."""
    rows = [*encoded(message)]
    plain = [field(a.number, wire, content) for a, wire, content, _ in rows]
    yield f"{above} unknown", b"".join([*plain, field(1000, VARINT, b"\1")])
    yield f"{above} group", b"".join([*plain, varint(1 << 3 | GROUP), varint(1 << 3 | GROUP_END)])
    yield f"{above} cut off", b"".join([*plain, varint(1 << 3 | BYTES), b"\x05ab"])
    seen = set()
    for at, (about, wire, content, inner) in enumerate(rows):
        before, after = b"".join(plain[:at]), b"".join(plain[at + 1 :])
        name = f"{above}.{about.name}"
        if about.name in seen:  # one of each kind in each message
            continue
        seen.add(about.name)
        if not about.is_repeated:
            yield f"{name} twice", before + plain[at] * 2 + after
        other = VARINT if wire == BYTES else BYTES
        yield f"{name} of another type", before + field(about.number, other, b"\1") + after
        if not about.is_repeated or wire == BYTES:
            wrong = field(about.number, FIXED64, b"12345678")
            yield f"{name} of eight bytes", before + wrong + after
        head = longer(about.number << 3 | wire)
        tail = varint(len(content)) + content if wire == BYTES else content
        yield f"{name} with a long key", before + head + tail + after
        if wire == BYTES:
            tail = longer(len(content)) + content
            yield (
                f"{name} with a long size",
                before + varint(about.number << 3 | wire) + tail + after,
            )
        for what, data in spoilt(inner, name) if inner is not None else ():
            yield what, before + field(about.number, BYTES, data) + after


def test_every_field_at_every_depth_stands_once_and_in_its_own_encoding(model_of):
    proto = onnx.load_model_from_string(model_of())
    del proto.graph.node[1:-1]  # what they compute does not matter, they come first
    cases = Counter()
    for what, data in spoilt(proto):
        cases[what.rsplit(" ", 1)[-1]] += 1
        # packed numbers are another way to write the same, which every reader knows
        if "dims of another type" in what or "_data of another type" in what:
            continue
        assert _is_refused(data), what
    assert sum(cases.values()) > 150


def _is_refused(data):
    try:
        check_limits(data)
    except PolicyRefused:
        return True
    return False


def test_the_whole_file_is_what_every_reader_of_protobuf_takes_it_for(model_of):
    """The parser that onnxruntime has sees the same operators, attributes and weights."""
    model = model_of()
    shapes = check_limits(model).shapes
    graph = onnx.load_model_from_string(model).graph
    assert {*shapes} == {i.name for i in graph.input} | {n for o in graph.node for n in o.output}


def test_ten_bytes_cost_nothing():
    """The name of an operator given as a number: it was taken as that many zeros."""
    name = field(4, VARINT, varint(1 << 31))
    model = field(7, BYTES, field(1, BYTES, name))
    assert len(model) == 10
    tracemalloc.start()
    try:
        refused(model, "no ONNX model")
        with pytest.raises(PolicyRefused):
            PolicyRunner.from_bytes(model)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1_000_000


def test_a_file_of_millions_of_empty_fields_is_given_up(monkeypatch):
    monkeypatch.setattr("wm_core.contract.onnx_schema.MAX_FIELDS", 1000)
    identity = model_with(helper.make_node("Identity", ["x"], ["y"])).SerializeToString()
    check_limits(identity)
    refused(identity + field(14, BYTES, b"") * 1000, "more fields than any policy")
    refused(field(7, BYTES, field(1, BYTES, b"") * 1000), "more fields than any policy")


def test_texts_are_bounded(model_of):
    proto = onnx.load_model_from_string(model_of())
    proto.graph.node[0].name = "n" * 5000
    refused(proto, "texts of at most 4096 bytes")
    proto.graph.node[0].name = ""
    proto.metadata_props[0].value = " " * 600_000
    refused(proto, "texts of at most 500000 bytes")
    proto.metadata_props[0].value = "{}"
    proto.metadata_props.add(key=proto.metadata_props[0].key, value="{}")
    refused(proto, "every key of the metadata once")


# ----------------------------------------------------------------- operators and their versions


def test_the_table_is_that_of_the_operators_version():
    """Every operator of the list has exactly the attributes that its own definition gives it."""
    kinds = {"FLOAT": "f", "INT": "i", "STRING": "s", "TENSOR": "t", "FLOATS": "floats"}
    kinds |= {"INTS": "ints", "STRINGS": "strings"}
    for name, attributes in OPERATORS.items():
        schema = onnx.defs.get_schema(name, OPSET)
        known = {n: kinds.get(a.type.name) for n, a in schema.attributes.items()}
        if name == "Constant":
            known = {n: k for n, k in known.items() if k and not k.startswith("s")}
        assert attributes == known, name
        assert not schema.deprecated
        assert (name in RULES) + (name in LAYER_RULES) == 1, name


def test_every_other_operator_is_refused_by_name():
    others = {s.name for s in onnx.defs.get_all_schemas()} - {*OPERATORS}
    assert others >= {
        "If",
        "Loop",
        "Scan",
        "RandomNormal",
        "NonZero",
        "SequenceAt",
        "StringConcat",
    }
    for name in sorted(others):
        refused(model_with(helper.make_node(name, ["x"], ["y"])), f"has {name!r}")
        refused(
            model_with(helper.make_node("Identity", ["x"], ["y"], domain=f"com.{name}")),
            f"'Identity' of 'com.{name}'",
        )


@pytest.mark.parametrize("name", OPERATORS)
def test_no_operator_has_an_attribute_that_is_not_its_own(name):
    given = helper.make_node(name, ["x"], ["y"])
    given.attribute.append(helper.make_attribute("body_path", "/etc/passwd"))
    refused(model_with(given), "'body_path' of kind 's'")
    for attribute, kind in OPERATORS[name].items():
        wrong = helper.make_node(name, ["x"], ["y"])
        wrong.attribute.append(helper.make_attribute(attribute, 1.5 if kind != "f" else 1))
        refused(model_with(wrong), f"{attribute!r} of kind")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: setattr(m, "ir_version", 3), "format version 8, it has 3"),
        (lambda m: setattr(m, "ir_version", 11), "format version 8, it has 11"),
        (lambda m: setattr(m.opset_import[0], "version", 17), "in version 18"),
        (lambda m: setattr(m.opset_import[0], "version", 24), "in version 18"),
        (lambda m: m.opset_import.add(domain="", version=18), "in version 18"),
        (lambda m: m.opset_import.add(domain="ai.onnx.ml", version=3), "in version 18"),
        (lambda m: m.opset_import.pop(), "in version 18"),
        (lambda m: m.functions.add(name="f", domain="local"), "functions"),
        (lambda m: m.training_info.add(), "training"),
        (lambda m: m.graph.quantization_annotation.add(), "no field 14"),
        (lambda m: m.graph.input.add(name="other"), "that are tensors"),
        (lambda m: m.graph.input.append(m.graph.input[0]), "one that stands twice"),
        (lambda m: m.graph.node.append(m.graph.node[0]), "which is there already"),
        (lambda m: m.graph.node[0].input.append("later"), "which nothing before it computes"),
        (lambda m: setattr(m.graph.node[0], "overload", "x"), "no field 8"),
        (lambda m: m.ClearField("graph"), "it has no graph"),
    ],
)
def test_what_no_exporter_of_ours_writes_is_refused(change, said):
    model = model_with(helper.make_node("Identity", ["x"], ["y"]))
    check_limits(model.SerializeToString())
    change(model)
    refused(model, said)


@pytest.mark.parametrize("kind", [8, 14, 15, 16, 17, 20, 22, 99])
def test_tensors_hold_numbers(kind):
    """Neither text nor complex numbers, nor types that came later than the operators."""
    identity = helper.make_node("Identity", ["x"], ["y"])
    tensor = TensorProto(name="w", data_type=kind, dims=[0])
    refused(model_with(identity, weights=[tensor]), f"'w' of element type {kind}")
    refused(model_with(helper.make_node("Cast", ["x"], ["y"], to=kind)), "element type")
    typed = model_with(identity)
    typed.graph.input[0].type.tensor_type.elem_type = kind
    refused(typed, "element type")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dims": [3], "raw_data": b"12345678"}, "has 3 elements and holds 8 bytes"),
        ({"dims": [1], "raw_data": b"1234", "float_data": [1.0]}, "a weight's numbers once"),
        ({"dims": [1], "int64_data": [1]}, "a weight's numbers once"),
        ({"dims": [1]}, "a weight's numbers once"),
        ({"dims": [2], "float_data": [1.0]}, "has 2 elements and holds 1"),
        ({"dims": [-1], "raw_data": b""}, "sizes of 0 or more"),
        ({"dims": [1] * 9, "float_data": [1.0]}, "at most 8 numbers"),
        ({"dims": [1 << 40, 1 << 40], "raw_data": b"1234"}, "holds 4 bytes"),
        ({"dims": [9000], "float_data": [0.0] * 9000}, "at most 4096 numbers"),
    ],
)
def test_a_weight_holds_what_it_says_in_one_way(fields, said):
    identity = helper.make_node("Identity", ["x"], ["y"])
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, **fields)
    refused(model_with(identity, weights=[tensor]), said)
