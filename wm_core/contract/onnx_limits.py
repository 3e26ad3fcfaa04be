"""Refuses what an ONNX file may not hold, from its bytes, before any runtime sees them.

Loadable is what this project's exporter writes and what ``wm adopt`` makes of another trainer's
network: operators of one list, each with its own attributes, weights that lie in the file, sizes
that are numbers.  onnxruntime follows external data to other files of the machine, and control
flow can make a step as long as it likes; neither has a place in a policy.  A robot has no onnx
package, so the bytes are read here (``onnx_schema``).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from wm_core.contract.card import PolicyCard
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_operators import ELEMENT_BYTES, IR_VERSION, OPERATORS, OPSET
from wm_core.contract.onnx_schema import OnnxMessage, floats_of, ints_of, read_model, signed
from wm_core.contract.onnx_shapes import Node, Shape, Tensor
from wm_core.contract.onnx_sizes import MAX_KNOWN, MAX_RANK, Sizes
from wm_core.contract.onnx_wire import fields

MAX_NODES = 20_000  #: operators of a graph
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_NAME, _TENSOR_RAW = 7, 5, 8, 9
_DOMAINS = ("", "ai.onnx")

#: kind of an attribute's value -> its number in onnx.proto, and the field that holds it
_KINDS = {
    "f": (1, "f"), "i": (2, "i"), "s": (3, "s"), "t": (4, "t"),
    "floats": (6, "floats"), "ints": (7, "ints"), "strings": (8, "strings"),
}  # fmt: skip
_LISTS = ("ints", "floats", "strings")
_VALUES = {field for _, field in _KINDS.values()}
#: numpy type of a tensor's numbers, where they are followed
_DTYPES = {1: "<f4", 6: "<i4", 7: "<i8", 9: "?", 11: "<f8"}
_TYPED = {"float_data": "floats", "double_data": "doubles"}
#: field of a tensor that holds numbers -> the element types whose numbers it holds
_DATA = {
    "raw_data": {*ELEMENT_BYTES}, "float_data": {1}, "int32_data": {2, 3, 4, 5, 6, 9, 10},
    "int64_data": {7}, "double_data": {11}, "uint64_data": {12, 13},
}  # fmt: skip


class Contents(NamedTuple):
    """Says what a policy's graph is made of."""

    shapes: dict[str, Shape]  #: by name, of every input and of every tensor that it computes
    operators: frozenset[str]


def check_limits(model: bytes) -> Contents:
    """Hold a policy's file to what a policy may be, and say what is in it.

    Raises:
        PolicyRefused: for anything that no policy has, naming it: operators that are not listed,
            attributes of other types, external data, subgraphs, functions, sparse weights, fields
            that stand twice, and a step that asks for too much memory or work.
    """
    found = read_model(model)
    graph = found.content.get("graph")
    if not isinstance(graph, OnnxMessage):
        raise PolicyRefused("policy file does not load: it is no ONNX model, for it has no graph")
    if found.number("ir_version") != IR_VERSION:
        raise _refused(f"format version {IR_VERSION}", f"{found.number('ir_version')}")
    versions = [(o.text("domain"), o.number("version")) for o in found.many("opset_import")]
    if len(versions) != 1 or versions[0][0] not in _DOMAINS or versions[0][1] != OPSET:
        raise _refused(f"operators of ai.onnx in version {OPSET}", f"{versions}")
    keys = [entry.text("key") for entry in found.many("metadata_props")]
    if len({*keys}) != len(keys):
        raise _refused("every key of the metadata once", f"{sorted(keys)}")
    return _check_graph(graph)


def check_weights(model: bytes, card: PolicyCard) -> None:
    """Raise ``PolicyRefused`` where the weights in ``model`` are not those that the card names.

    Only of a file that this project's exporter wrote: it says by which packages.
    """
    if not card.exporter or not card.weights_sha256 or card.quantized:
        return
    got = weights_hash(model)
    if got != card.weights_sha256:
        raise PolicyRefused(
            f"weights: expected sha256 {card.weights_sha256} as the card says, got {got}"
        )


def weights_hash(model: bytes) -> str:
    """Hash over the names and bytes of a graph's initializers, sorted by name."""
    content = dict(_initializers(memoryview(model)))
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(name.encode() + b"\0" + len(content[name]).to_bytes(8, "little"))
        digest.update(content[name])
    return digest.hexdigest()


def _initializers(model: memoryview) -> Iterator[tuple[str, memoryview]]:
    for number, graph in fields(model):
        for part, tensor in fields(graph) if number == _MODEL_GRAPH else ():
            if part == _GRAPH_INITIALIZER:
                found = dict(fields(tensor))
                name, raw = found.get(_TENSOR_NAME, b""), found.get(_TENSOR_RAW, b"")
                if not isinstance(raw, int) and not isinstance(name, int):
                    yield bytes(name).decode(), memoryview(raw)


def _refused(expected: str, got: str) -> PolicyRefused:
    return PolicyRefused(f"policy file: expected {expected}, it has {got[:200]}")


def _check_graph(graph: OnnxMessage) -> Contents:
    inputs = dict(_described(graph.many("input")))
    weights = dict(_weights(graph.many("initializer")))
    names = [*inputs, *weights]
    if len({*names}) != len(graph.many("input")) + len(graph.many("initializer")):
        raise _refused("every input and weight once", "one that stands twice")
    open_ones = [
        name for name, shape in inputs.items() if shape is None or min(shape, default=1) < 1
    ]
    if open_ones:
        raise _refused("inputs of a fixed shape", f"{open_ones}, whose sizes have no number")
    nodes = graph.many("node")
    if len(nodes) > MAX_NODES:
        raise _refused(f"at most {MAX_NODES} operators", f"{len(nodes)}")
    sizes = Sizes({name: shape for name, shape in inputs.items() if shape is not None}, weights)
    shapes = {name: shape for name, shape in inputs.items() if shape is not None}
    for message in nodes:
        node = _node(message)
        sizes.add(node)
        shapes |= {name: sizes.shape(name) or () for name in node.outputs if name}
    for name, shape in _described([*graph.many("output"), *graph.many("value_info")]):
        known = sizes.shape(name)
        if known is not None and shape is not None and known != shape:
            raise _refused(f"{name!r} to be {known}, as its operators make it", f"it as {shape}")
    return Contents(shapes, frozenset(message.text("op_type") for message in nodes))


def _described(values: Iterable[OnnxMessage]) -> Iterator[tuple[str, Shape | None]]:
    """Name and shape of each tensor; None where a size is open, or the shape is left out."""
    for value in values:
        tensor = value.content.get("type", OnnxMessage("type", {})).content.get("tensor_type")
        if tensor is None:
            raise _refused("inputs and outputs that are tensors", f"{value.text('name')!r}")
        _element_bytes(tensor.number("elem_type"), value.text("name"))
        shape = tensor.content.get("shape")
        dims = [] if shape is None else shape.many("dim")
        numbers = [signed(dim.number("dim_value")) for dim in dims]
        known = shape is not None and all("dim_value" in dim.content for dim in dims)
        if known and (min(numbers, default=0) < 0 or len(numbers) > MAX_RANK):
            raise _refused(f"at most {MAX_RANK} sizes of 0 or more", f"{numbers}")
        yield value.text("name"), tuple(numbers) if known else None


def _element_bytes(kind: int, name: str) -> int:
    if kind not in ELEMENT_BYTES:
        raise _refused("tensors of numbers", f"{name!r} of element type {kind}")
    return ELEMENT_BYTES[kind]


def _weights(tensors: Iterable[OnnxMessage]) -> Iterator[tuple[str, Tensor]]:
    for tensor in tensors:
        shape, value = _tensor(tensor)
        yield tensor.text("name"), Tensor(shape, value)


def _tensor(tensor: OnnxMessage) -> tuple[Shape, np.ndarray | None]:
    """Shape of a tensor whose numbers lie in it, and these (...) where they are few."""
    name, kind = tensor.text("name"), tensor.number("data_type")
    width, dims = _element_bytes(kind, name), ints_of(tensor.many("dims"), MAX_RANK)
    if tensor.number("data_location"):
        raise _refused("every weight in it", "external data")
    if min(dims, default=0) < 0:
        raise _refused("sizes of 0 or more", f"{name!r} of {dims}")
    elements, data = math.prod(dims), [field for field in _DATA if field in tensor.content]
    if len(data) > 1 or (elements and not data) or any(kind not in _DATA[field] for field in data):
        raise _refused("a weight's numbers once", f"{name!r} with {data or 'none'}")
    if data == ["raw_data"] or not data:
        raw = tensor.content.get("raw_data", b"")
        if len(raw) != elements * width:
            raise PolicyRefused(
                f"policy file: a weight says it has {elements} elements and holds {len(raw)} bytes"
            )
        few = elements <= MAX_KNOWN and kind in _DTYPES
        return tuple(dims), np.frombuffer(raw, _DTYPES[kind]).reshape(dims) if few else None
    pieces, floats = tensor.many(data[0]), _TYPED.get(data[0])
    numbers: list[Any] = (
        floats_of(pieces, floats, MAX_KNOWN) if floats else ints_of(pieces, MAX_KNOWN)
    )
    if len(numbers) != elements:
        raise PolicyRefused(
            f"policy file: a weight says it has {elements} elements and holds {len(numbers)}"
        )
    dtype = _DTYPES.get(kind)
    return tuple(dims), np.array(numbers).astype(dtype).reshape(dims) if dtype else None


def _node(message: OnnxMessage) -> Node:
    given = [_attribute(a) for a in message.many("attribute")]
    operator, domain = message.text("op_type"), message.text("domain")
    if domain not in _DOMAINS:
        raise PolicyRefused(
            f"policy file: expected operators of ai.onnx, it has {operator!r} of {domain!r}"
        )
    if operator not in OPERATORS:
        raise _refused("operators that compute and do nothing else", repr(operator))
    known, attributes = OPERATORS[operator], dict[str, Any]()
    for name, kind, value in given:
        if name in attributes or known.get(name) != kind:
            raise _refused(
                f"of {operator} the attributes {known}, each once", f"{name!r} of kind {kind!r}"
            )
        attributes[name] = value
    if operator == "Constant" and len(attributes) != 1:
        raise _refused("one value in a Constant", f"{sorted(attributes)}")
    if operator == "Cast":
        _element_bytes(int(attributes.get("to", 0)), "a Cast")
    if attributes.get("training_mode"):
        raise _refused("no training", f"a {operator} that learns")
    outputs = message.many("output")
    if not any(outputs):
        raise _refused("operators that answer something", f"a {operator} without an answer")
    return Node(operator, tuple(message.many("input")), tuple(outputs), attributes)


def _attribute(attribute: OnnxMessage) -> tuple[str, str, Any]:
    """Name of an attribute, kind of its value, and that value."""
    name, number = attribute.text("name"), attribute.number("type")
    held = _VALUES & {*attribute.content}
    for kind, (kind_number, field) in _KINDS.items():
        # a list without entries leaves no trace but its type
        if kind_number == number and held <= {field} and (held or kind in _LISTS):
            return name, kind, _attribute_value(attribute, kind, field)
    raise _refused("attributes of one value of their type", f"{name!r} of type {number}: {held}")


def _attribute_value(attribute: OnnxMessage, kind: str, field: str) -> Any:
    value = attribute.content.get(field, [])
    if kind == "i":
        return signed(value)
    if kind == "f":
        return float(np.frombuffer(value, "<f4")[0])
    if kind == "ints":
        return ints_of(value, MAX_KNOWN)
    if kind == "floats":
        return floats_of(value, "floats", MAX_KNOWN)
    if kind == "t":
        shape, known = _tensor(value)
        return np.broadcast_to(np.float32(0), shape) if known is None else known
    return value
