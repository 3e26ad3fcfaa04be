"""Builds a small ONNX graph around another one, node by node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from wm_core.contract.card import TensorInfo
from wm_core.contract.onnx_cut import TYPES
from wm_core.exporting.to_onnx import IR_VERSION, OPSET, strip


class GraphBuilder:
    """Collects the nodes and constants of a graph whose tensors are known by name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._count = 0

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append an operator with one output; returns that output's name."""
        name = output or self._new(operator.lower())
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def const(self, value: Any, dtype: Any = np.float32) -> str:
        """Append a constant array (...); returns its name."""
        name = self._new("const")
        self._weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def reshape(self, tensor: str, shape: Sequence[int]) -> str:
        """Give ``tensor`` another ``shape``."""
        return self.add("Reshape", tensor, self.const(shape, np.int64))

    def include(self, graph: onnx.GraphProto) -> None:
        """Append the nodes and weights of another ``graph``, whose names are all its own."""
        self._nodes += graph.node
        self._weights += graph.initializer

    def model(self, inputs: Iterable[TensorInfo], outputs: Iterable[TensorInfo]) -> bytes:
        """Make the ONNX file that reads ``inputs`` and answers ``outputs``.

        Raises:
            onnx.checker.ValidationError: for a graph that does not hold together.
        """
        graph = helper.make_graph(
            self._nodes,
            "policy",
            [_value(info) for info in inputs],
            [_value(info) for info in outputs],
            self._weights,
        )
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        proto = strip(proto)
        onnx.checker.check_model(proto, full_check=True)
        data: bytes = proto.SerializeToString(deterministic=True)
        return data

    def _new(self, what: str) -> str:
        self._count += 1
        return f"{what}.{self._count}"


def _value(info: TensorInfo) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(info.name, TYPES[info.dtype], info.shape)
