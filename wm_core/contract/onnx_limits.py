"""Refuses what an ONNX file may not hold, from its bytes, before any runtime sees them.

onnxruntime follows external data to other files of the machine, and control flow can make a step
as long as it likes; neither has a place in a policy.  A robot has no onnx package, so this reads
the few protobuf fields that matter (numbers as in onnx.proto).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator

from wm_core.contract.card import PolicyCard
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_wire import fields, varints

_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DIMS, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 8, 9, 13, 14
_PER_BYTE = 2  #: elements of the smallest type, int4


def check_limits(model: bytes) -> None:
    """Raise ``PolicyRefused`` for external data, subgraphs, functions or foreign operators."""
    try:
        for number, value in fields(memoryview(model)):
            if number == _MODEL_FUNCTIONS:
                raise PolicyRefused("policy file: expected plain operators, it has functions")
            if number == _MODEL_GRAPH:
                _check_graph(value)
    except (IndexError, TypeError, UnicodeDecodeError) as error:
        raise PolicyRefused("policy file does not load: it is no ONNX model") from error


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
                if not isinstance(raw, int):
                    yield bytes(name).decode(), memoryview(raw)


def _check_graph(graph: int | memoryview) -> None:
    for number, value in fields(graph):
        if number == _GRAPH_NODE:
            _check_node(value)
        elif number == _GRAPH_INITIALIZER:
            _check_tensor(value)
        elif number == _GRAPH_SPARSE:
            raise PolicyRefused("policy file: expected dense weights, it has sparse ones")


def _check_node(node: int | memoryview) -> None:
    operator, domain = "", ""
    for number, value in fields(node):
        if number == _NODE_OP:
            operator = bytes(value).decode()
        elif number == _NODE_DOMAIN:
            domain = bytes(value).decode()
        elif number == _NODE_ATTRIBUTE:
            for part, content in fields(value):
                if part in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                    raise PolicyRefused("policy file: expected no control flow, it has subgraphs")
                if part in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                    _check_tensor(content)
    if domain not in ("", "ai.onnx"):
        raise PolicyRefused(
            f"policy file: expected operators of ai.onnx, it has {operator!r} of {domain!r}"
        )


def _check_tensor(tensor: int | memoryview) -> None:
    elements, size = 1, 0 if isinstance(tensor, int) else len(tensor)
    for number, value in fields(tensor):
        if number == _TENSOR_DIMS:  # one by one, or all of them packed
            elements *= math.prod([value] if isinstance(value, int) else varints(value))
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            raise PolicyRefused("policy file: expected every weight in it, it has external data")
    if elements > _PER_BYTE * size:
        raise PolicyRefused(
            f"policy file: a weight says it has {elements} elements and holds {size} bytes"
        )
