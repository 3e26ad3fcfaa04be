"""Finds where a policy's graph can be cut into two halves, one of which needs no observation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx

from wm_core.contract.card import TensorInfo
from wm_core.contract.onnx_cut import TYPES

_DTYPES = {number: name for name, number in TYPES.items()}
_ROUNDING = {"QuantizeLinear", "DequantizeLinear"}  #: of a value: it is done where it is read


def split_of(model: onnx.ModelProto, observed: Collection[str]) -> tuple[TensorInfo, ...]:
    """List what the half that needs an observation reads from the other half, in order.

    That is the recurrence of a policy with a memory, with the prior's guess, the limits of the
    slew and the noise ready for use; of one without a memory the limits and the noise alone.

    Args:
        model: a policy's graph, with the shapes of its inner tensors where it knows them.
        observed: names of the inputs that come with an observation.

    Returns:
        The tensors by name; none where there is nothing to do ahead, or where one has no fixed
        shape: such a graph is run as a whole.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    made, reached = _sides(model, observed)
    late = [node for node in model.graph.node if not reached.isdisjoint(node.output)]
    read = {_source(name, makers) for node in late for name in node.input}
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    found = []
    for name in made:
        if name not in read:
            continue
        tensor = known.get(name)
        sizes = [] if tensor is None else [dim.dim_value for dim in tensor.shape.dim]
        if tensor is None or tensor.elem_type not in _DTYPES or 0 in sizes:
            return ()
        found.append(TensorInfo(name=name, dtype=_DTYPES[tensor.elem_type], shape=(*sizes,)))
    return (*found,)


def _sides(model: onnx.ModelProto, observed: Collection[str]) -> tuple[list[str], set[str]]:
    """The tensors that need no observation, in order, and those that do.

    What follows from weights alone is on neither side: both halves may have it.
    """
    reached, varies = set(observed), {value.name for value in model.graph.input}
    made: list[str] = []
    for node in model.graph.node:
        if not reached.isdisjoint(node.input):
            reached.update(node.output)
        elif not varies.isdisjoint(node.input):
            varies.update(node.output)
            made += node.output
    return made, reached


def _source(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """The tensor of which ``name`` is a rounded copy, or itself."""
    while name in makers and makers[name].op_type in _ROUNDING:
        name = makers[name].input[0]
    return name


class ColumnRange(NamedTuple):
    """Some columns of a weight as an initializer of their own."""

    name: str
    start: int
    stop: int


def divide_products(
    model: onnx.ModelProto, observed: Collection[str]
) -> dict[str, tuple[ColumnRange, ColumnRange]]:
    """Divide products of what is known ahead and what is observed, side by side, into two.

    ``W [h; z] + b`` becomes ``(U h + b) + V z``: the first layer of an actor reads the whole of
    deter, and its larger part then waits for no observation.  Changes ``model``.

    Args:
        model: a policy's graph, with the shapes of its inner tensors.
        observed: names of the inputs that come with an observation.

    Returns:
        The columns that took the place of each divided weight, by its name.
    """
    graph, (made, reached) = model.graph, _sides(model, observed)
    early, makers = set(made), {name: node for node in graph.node for name in node.output}
    shapes = _shapes(model)
    weights = {tensor.name: tensor for tensor in graph.initializer}
    uses = [name for node in graph.node for name in node.input]
    divided: dict[str, tuple[ColumnRange, ColumnRange]] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        joined = makers.get(node.input[0]) if node.input else None
        if joined is None or not _may_be_divided(node, joined) or uses.count(node.input[1]) != 1:
            nodes.append(node)
            continue
        known, seen = joined.input
        width = shapes.get(known, (0, 0))[-1]
        if known not in early or seen not in reached or not width or node.input[1] not in weights:
            nodes.append(node)
            continue
        weight, out = weights[node.input[1]], node.output[0]
        whole = onnx.numpy_helper.to_array(weight)
        parts = (
            ColumnRange(f"{weight.name}.known", 0, width),
            ColumnRange(f"{weight.name}.observed", width, whole.shape[1]),
        )
        for part in parts:
            columns = np.ascontiguousarray(whole[:, part.start : part.stop])
            graph.initializer.append(onnx.numpy_helper.from_array(columns, part.name))
        graph.initializer.remove(weight)
        make, ahead, behind = onnx.helper.make_node, f"{out}_known", f"{out}_observed"
        nodes += [
            make("Gemm", [known, parts[0].name, *node.input[2:]], [ahead], transB=1),
            make("Gemm", [seen, parts[1].name], [behind], transB=1),
            make("Add", [ahead, behind], [out]),
        ]
        for name in (ahead, behind):
            value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shapes[out])
            graph.value_info.append(value)
        divided[weight.name] = parts
    read = {name for node in nodes for name in node.input} | {o.name for o in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in nodes if not read.isdisjoint(node.output))
    return divided


def _may_be_divided(node: onnx.NodeProto, joined: onnx.NodeProto) -> bool:
    """Whether ``node`` is a plain product with two tensors that ``joined`` puts side by side."""
    if node.op_type != "Gemm" or joined.op_type != "Concat" or len(joined.input) != 2:
        return False
    plain: dict[str, Any] = {"transA": 0, "transB": 1, "alpha": 1.0, "beta": 1.0}
    said = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    axis = [a.i for a in joined.attribute if a.name == "axis"]
    return (
        {"transB": 0, **said}["transB"] == 1
        and axis in ([1], [-1])
        and said.items() <= plain.items()
    )


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
