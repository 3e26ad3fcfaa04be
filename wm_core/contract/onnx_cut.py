"""Cuts a part out of a policy's graph: the nodes between some tensors and others.

A robot runs a policy's step in two halves that hold disjoint weights: what follows from the last
step alone, computed once its command is out, and what needs the observation.  Both are cut from
the one file, by its bytes, so that nothing but the file has to be published, hashed and proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wm_core.contract.card import TensorInfo
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_wire import (
    Field,
    Piece,
    bytes_field,
    fields,
    number_field,
    text_field,
)

Info = tuple[str, tuple[int | str, ...]]  #: dtype and shape; a size without a number is a name

#: numbers of element types in onnx.proto
TYPES = {
    "float32": 1, "uint8": 2, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9,
}  # fmt: skip
_DTYPES = {number: name for name, number in TYPES.items()}
_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_NODE, _GRAPH_NAME, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 2, 5, 11, 12
_GRAPH_VALUE = 13
_NODE_INPUT, _NODE_OUTPUT, _TENSOR_NAME, _VALUE_NAME = 1, 2, 8, 1


class Cut(NamedTuple):
    """A part of a graph as an ONNX model of its own."""

    pieces: list[Piece]  #: the model's bytes in order; weights are views of the whole file
    inputs: tuple[str, ...]  #: what it reads, in the order of the whole graph, cut tensors last
    outputs: tuple[str, ...]


class _Node(NamedTuple):
    content: memoryview
    inputs: list[str]
    outputs: list[str]


class Graph:
    """The graph of an ONNX file, from which parts are cut.

    Args:
        model: the bytes of the file.

    Attributes:
        metadata: key -> text, as the file has them.
        inputs: name -> dtype and shape of each input.
        outputs: the same of each output.

    Raises:
        PolicyRefused: for what is no ONNX model.
    """

    def __init__(self, model: bytes) -> None:
        try:
            self._read(model)
        except (IndexError, KeyError, TypeError, ValueError) as error:  # not Unicode among them
            raise PolicyRefused("policy file does not load: it is no ONNX model") from error

    def _read(self, model: bytes) -> None:
        content = [*fields(memoryview(model))]
        (graph,) = [value for number, value in content if number == _MODEL_GRAPH]
        entries = [value for number, value in content if number == _MODEL_METADATA]
        self.metadata = dict(_entry(value) for value in entries)
        self._head = [f for f in content if f[0] not in (_MODEL_GRAPH, _MODEL_METADATA)]
        parts: dict[int, list[memoryview]] = {}
        for number, value in fields(graph):
            if isinstance(value, memoryview):
                parts.setdefault(number, []).append(value)
        self._nodes = [_node(value) for value in parts.get(_GRAPH_NODE, [])]
        self._weights = _by_name(parts.get(_GRAPH_INITIALIZER, []), _TENSOR_NAME)
        self._inputs = _by_name(parts.get(_GRAPH_INPUT, []), _VALUE_NAME)
        self._outputs = _by_name(parts.get(_GRAPH_OUTPUT, []), _VALUE_NAME)
        self.inputs = {name: _info(value) for name, value in self._inputs.items()}
        self.outputs = {name: _info(value) for name, value in self._outputs.items()}
        self._inner = _by_name(parts.get(_GRAPH_VALUE, []), _VALUE_NAME)

    def cut(self, at: Sequence[TensorInfo], outputs: Sequence[str]) -> Cut:
        """Cut out what computes ``outputs`` where the tensors ``at`` are given.

        Args:
            at: tensors within the graph that become inputs, and those of ``outputs`` that are no
                outputs of the whole graph.
            outputs: names of what the part answers.

        Raises:
            PolicyRefused: for a tensor that the graph does not compute.
        """
        inner = {info.name: info for info in at if info.name not in outputs}
        nodes, needed = self._above(outputs, set(inner))
        given = [name for name in self._inputs if name in needed]
        unknown = needed - set(self._weights) - set(given) - set(inner)
        if unknown:
            raise PolicyRefused(f"policy file: no part of it computes {sorted(unknown)}")
        taken = [name for name in inner if name in needed]
        infos = {info.name: info for info in at}
        graph: list[Piece] = [text_field(_GRAPH_NAME, "policy")]
        for node in nodes:
            graph += bytes_field(_GRAPH_NODE, [node.content])
        for name, weight in self._weights.items():
            if name in needed:
                graph += bytes_field(_GRAPH_INITIALIZER, [weight])
        for name in given:
            graph += bytes_field(_GRAPH_INPUT, [self._inputs[name]])
        for name in taken:
            graph += bytes_field(_GRAPH_INPUT, [_value(inner[name])])
        for name in outputs:
            told = self._outputs.get(name)
            graph += bytes_field(_GRAPH_OUTPUT, [_value(infos[name]) if told is None else told])
        head = [piece for field in self._head for piece in _again(field)]
        return Cut([*head, *bytes_field(_MODEL_GRAPH, graph)], (*given, *taken), tuple(outputs))

    def independent(self, of: Iterable[str]) -> tuple[str, ...]:
        """Name the tensors, weights apart, that no input in ``of`` can change, in order."""
        reached, others = set(of), []
        for node in self._nodes:
            if reached.isdisjoint(node.inputs):
                others += node.outputs
            else:
                reached.update(node.outputs)
        return tuple(others)

    def shared(
        self, at: Sequence[TensorInfo], outputs: Sequence[str], later: str
    ) -> tuple[TensorInfo, ...] | None:
        """List what ``later`` reads of what ``outputs`` are computed from, where ``at`` are given.

        None where the file does not say what such a tensor is like.
        """
        stop = {info.name for info in at}
        nodes, _ = self._above(outputs, stop)
        made = {name for node in nodes for name in node.outputs}
        more, _ = self._above([later], stop | made)
        read = {name for node in more for name in node.inputs} | {later}
        names = [name for node in nodes for name in node.outputs if name in read]
        told = {**self._inner, **self._outputs}
        infos = [_tensor_info(name, told.get(name)) for name in names]
        known = tuple(info for info in infos if info is not None)
        return known if len(known) == len(names) else None

    def _above(self, outputs: Iterable[str], stop: set[str]) -> tuple[list[_Node], set[str]]:
        """The nodes that ``outputs`` follow from, down to ``stop``, and all that these read."""
        needed = set(outputs)
        kept = []
        for node in reversed(self._nodes):
            made = needed.intersection(node.outputs) - stop
            if made:
                kept.append(node)
                needed.difference_update(made)
                needed.update(name for name in node.inputs if name)
        return kept[::-1], needed


def _by_name(values: Iterable[memoryview], number: int) -> dict[str, memoryview]:
    return {_strings(value, number)[0]: value for value in values}


def _node(content: memoryview) -> _Node:
    return _Node(content, _strings(content, _NODE_INPUT), _strings(content, _NODE_OUTPUT))


def _strings(message: memoryview, number: int) -> list[str]:
    return [
        bytes(value).decode()
        for got, value in fields(message)
        if got == number and isinstance(value, memoryview)
    ]


def _entry(entry: int | memoryview) -> tuple[str, str]:
    """Read a StringStringEntryProto; what is left out is empty."""
    parts = {
        number: bytes(value).decode()
        for number, value in fields(entry)
        if isinstance(value, memoryview)
    }
    return parts.get(1, ""), parts.get(2, "")


def _info(value: memoryview) -> Info:
    """Read dtype and shape of a ValueInfoProto that describes a tensor."""
    tensor = dict(fields(dict(fields(dict(fields(value))[2]))[1]))
    number, shape = tensor[1], tensor.get(2, memoryview(b""))
    sizes: list[int | str] = []
    for _, dim in fields(shape):
        size = dict(fields(dim))
        said = size.get(1, size.get(2, memoryview(b"")))
        sizes.append(said if isinstance(said, int) else bytes(said).decode())
    return _DTYPES.get(int(number), f"type {number}") if isinstance(number, int) else "", (*sizes,)


def _tensor_info(name: str, value: memoryview | None) -> TensorInfo | None:
    """Read a ValueInfoProto of a fixed shape; None where it says too little."""
    dtype, shape = ("", ()) if value is None else _info(value)
    sizes = tuple(size for size in shape if isinstance(size, int))
    if dtype not in TYPES or sizes != shape:
        return None
    return TensorInfo.model_validate({"name": name, "dtype": dtype, "shape": sizes})


def _value(info: TensorInfo) -> bytes:
    """Encode the ValueInfoProto that describes ``info``."""
    dims = [b"".join(bytes_field(1, [number_field(1, size)])) for size in info.shape]
    tensor = [number_field(1, TYPES[info.dtype]), *bytes_field(2, [*dims])]
    kind = bytes_field(1, tensor)
    return b"".join([text_field(_VALUE_NAME, info.name), *bytes_field(2, kind)])


def _again(field: Field) -> list[Piece]:
    """Encode a field of the whole model as it was."""
    number, value = field
    return (
        [number_field(number, value)] if isinstance(value, int) else bytes_field(number, [value])
    )
