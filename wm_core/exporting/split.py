"""Finds where a policy's graph can be cut into two halves, one of which needs no observation."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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
    reached, varies = set(observed), {value.name for value in model.graph.input}
    makers = {name: node for node in model.graph.node for name in node.output}
    made: list[str] = []
    read: set[str] = set()
    for node in model.graph.node:
        if not reached.isdisjoint(node.input):
            reached.update(node.output)
            read.update(_source(name, makers) for name in node.input)
        elif not varies.isdisjoint(node.input):  # what depends on weights alone is in both halves
            varies.update(node.output)
            made += node.output
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


def _source(name: str, makers: Mapping[str, onnx.NodeProto]) -> str:
    """The tensor of which ``name`` is a rounded copy, or itself."""
    while name in makers and makers[name].op_type in _ROUNDING:
        name = makers[name].input[0]
    return name
