"""Nodes that turn a network's scores or indices into one-hot choices and their command."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx

from wm_core.exporting.graph_builder import GraphBuilder


def chosen_by_scores(graph: GraphBuilder, scores: str, sizes: Sequence[int]) -> tuple[str, str]:
    """Take the best of each choice: action (1, A) one-hot and command (1, G) indices.

    Args:
        graph: gets the nodes.
        scores: (1, A) of every choice in a row.
        sizes: how many each of the G choices has; they sum to A.
    """
    hots, commands = [], []
    for part, size in zip(_parts(graph, scores, sizes), sizes, strict=True):
        best = graph.add("ArgMax", part, axis=1, keepdims=0)
        index = graph.add("Cast", graph.reshape(best, (1, 1)), to=onnx.TensorProto.FLOAT)
        commands.append(index)
        hots.append(_one_hot(graph, best, size))
    return _joined(graph, hots), _joined(graph, commands)


def chosen_by_indices(graph: GraphBuilder, output: str, sizes: Sequence[int]) -> str:
    """Make (1, A) one-hot of ``output``, an index for each of ``sizes``, or of the nearest."""
    one = len(sizes) == 1
    numbers = graph.reshape(output, (1,) if one else (1, len(sizes)))
    numbers = graph.add("Cast", numbers, to=onnx.TensorProto.INT64)
    hots = []
    for part, size in zip(_parts(graph, numbers, [1] * len(sizes)), sizes, strict=True):
        hots.append(_one_hot(graph, part if one else graph.reshape(part, (1,)), size))
    return _joined(graph, hots)


def _one_hot(graph: GraphBuilder, number: str, size: int) -> str:
    """(1, size) of an index (1,); outside the choices the nearest one."""
    ends = [graph.const(v, np.int64) for v in (0, size - 1)]
    number = graph.add("Min", graph.add("Max", number, ends[0]), ends[1])
    depth = graph.const(size, np.int64)
    return graph.add("OneHot", number, depth, graph.const([0.0, 1.0]), axis=-1)


def _parts(graph: GraphBuilder, row: str, sizes: Sequence[int]) -> list[str]:
    """Cut (1, n) into consecutive parts of ``sizes``."""
    if len(sizes) == 1:
        return [row]
    ends = np.cumsum([0, *sizes]).tolist()
    return [
        graph.add("Slice", row, *(graph.const([v], np.int64) for v in (begin, end, 1)))
        for begin, end in pairwise(ends)
    ]


def _joined(graph: GraphBuilder, parts: list[str]) -> str:
    return graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
