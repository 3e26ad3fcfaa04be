"""Bounds the memory and the work of a policy's step from its file, before any runtime sees it.

What a camera shows cannot change them: a size that is not a number in the file is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_layers import LAYER_RULES, scratch_of, work_of
from wm_core.contract.onnx_shapes import RULES, Given, Node, Shape, Tensor, Unknown

MAX_STEP_BYTES = 512 << 20  #: of all that a step computes, apart from its weights
MAX_WORK = 20_000_000_000  #: multiplications of a step: a second and more of one processor
MAX_RANK = 8
MAX_KNOWN = 4096  #: numbers of a tensor whose values are followed
_NUMBER_BYTES = 8  #: of the largest type
_RULES = {**RULES, **LAYER_RULES}


class Sizes:
    """Follows the shapes of a graph's tensors in order.

    Args:
        inputs: name -> shape of each input.
        weights: the same of each weight, with its numbers where they are few.
    """

    def __init__(self, inputs: Mapping[str, Shape], weights: Mapping[str, Tensor]) -> None:
        self._known: dict[str, Tensor] = {**{n: Tensor(s) for n, s in inputs.items()}, **weights}
        self.bytes = self.work = 0
        for name, shape in inputs.items():
            self._check(name, shape)
            self.bytes += _NUMBER_BYTES * math.prod(shape)

    def shape(self, name: str) -> Shape | None:
        """Give the shape of a tensor; None where nothing computes it."""
        known = self._known.get(name)
        return None if known is None else known.shape

    def add(self, node: Node) -> None:
        """Follow one more operator.

        Raises:
            PolicyRefused: for what is not known yet, does not fit, or asks for too much.
        """
        given = [self._read(node, name) if name else None for name in node.inputs]
        try:
            shapes = _RULES[node.op](node, given)
            self.work += work_of(node, given, shapes)
            self.bytes += _NUMBER_BYTES * scratch_of(node, given, shapes)
        except Unknown as error:
            raise _misfit(node, str(error)) from error
        except (
            IndexError, ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError,
        ) as error:  # fmt: skip
            raise _misfit(node, "what it reads does not fit it") from error
        if len(shapes) < len(node.outputs):
            raise _misfit(node, f"it has {len(node.outputs)} answers, {len(shapes)} are known")
        value = _value(node, given, shapes[0])
        for at, (name, shape) in enumerate(zip(node.outputs, shapes, strict=False)):
            self._check(name, shape)
            self.bytes += _NUMBER_BYTES * math.prod(shape)
            self._know(node, name, Tensor(shape, value if at == 0 else None))
        self._check_total(node)

    def _read(self, node: Node, name: str) -> Tensor:
        if name not in self._known:
            raise _misfit(node, f"it reads {name!r}, which nothing before it computes")
        return self._known[name]

    def _know(self, node: Node, name: str, tensor: Tensor) -> None:
        if not name:
            return
        if name in self._known:
            raise _misfit(node, f"it computes {name!r}, which is there already")
        self._known[name] = tensor

    @staticmethod
    def _check(name: str, shape: Shape) -> None:
        if len(shape) > MAX_RANK or _NUMBER_BYTES * math.prod(shape) > MAX_STEP_BYTES:
            raise PolicyRefused(
                f"policy file: expected tensors of at most {MAX_RANK} axes and "
                f"{MAX_STEP_BYTES >> 20} MB, {name!r} has {shape}"
            )

    def _check_total(self, node: Node) -> None:
        if self.bytes > MAX_STEP_BYTES:
            raise PolicyRefused(
                f"policy file: expected a step of at most {MAX_STEP_BYTES >> 20} MB, its "
                f"{node.op} {node.outputs[0]!r} makes it {self.bytes >> 20} MB"
            )
        if self.work > MAX_WORK:
            raise PolicyRefused(
                f"policy file: expected at most {MAX_WORK:.0e} multiplications a step, its "
                f"{node.op} {node.outputs[0]!r} makes it {self.work:.0e}"
            )


def _misfit(node: Node, why: str) -> PolicyRefused:
    name = node.outputs[0] if node.outputs else ""
    return PolicyRefused(
        f"policy file: expected sizes that are fixed and fit, of its {node.op} {name!r}: {why}"
    )


# ---------------------------------------------------------------- numbers that are always the same


def _value(node: Node, given: Given, shape: Shape) -> np.ndarray | None:
    """Compute what a node always answers, where that is a few whole numbers: sizes, mostly."""
    if math.prod(shape) > MAX_KNOWN:
        return None
    if node.op == "Constant":
        (value,) = node.attributes.values()
        return np.asarray(value)
    if node.op == "Shape":
        first = given[0]
        rank = 0 if first is None else len(first.shape)
        sizes = () if first is None else first.shape
        return np.array(sizes[slice(node.number("start", 0), node.number("end", rank))], np.int64)
    if node.op == "Size":
        return None if given[0] is None else np.array(math.prod(given[0].shape), np.int64)
    if node.op not in _FOLLOWED or any(t is None or t.value is None for t in given):
        return None
    values = [t.value for t in given if t is not None and t.value is not None]
    if any(value.dtype.kind not in "iub" or value.size > MAX_KNOWN for value in values):
        return None
    try:
        with np.errstate(all="ignore"):  # numbers of 64 bits overflow there as they do here
            found = np.asarray(_FOLLOWED[node.op](node, values))
    except (IndexError, ValueError, TypeError, ZeroDivisionError):
        return None
    return found if found.shape == shape else None


def _slice(node: Node, values: Sequence[np.ndarray]) -> np.ndarray:
    data, starts, ends = values[:3]
    axes = values[3] if len(values) > 3 else np.arange(len(starts))
    steps = values[4] if len(values) > 4 else np.ones(len(starts), np.int64)
    at = [slice(None)] * data.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        at[int(axis)] = slice(int(start), int(end), int(step))
    return data[tuple(at)]


def _cast(node: Node, values: Sequence[np.ndarray]) -> np.ndarray:
    whole = {6: np.int32, 7: np.int64, 9: np.bool_}[node.number("to", 0)]
    return values[0].astype(whole)


_FOLLOWED: dict[str, Callable[[Node, Sequence[np.ndarray]], np.ndarray]] = {
    "Add": lambda n, v: v[0] + v[1],
    "Cast": _cast,
    "Concat": lambda n, v: np.concatenate(v, axis=n.number("axis", 0)),
    "ConstantOfShape": lambda n, v: np.full(
        v[0], np.asarray(n.attributes.get("value", 0)).reshape(-1)[0]
    ),
    "Div": lambda n, v: v[0] // v[1] if (v[0] >= 0).all() and (v[1] > 0).all() else v[0][None:0],
    "Equal": lambda n, v: v[0] == v[1],
    "Gather": lambda n, v: np.take(v[0], v[1], axis=n.number("axis", 0)),
    "Identity": lambda n, v: v[0],
    "Mul": lambda n, v: v[0] * v[1],
    "ReduceProd": lambda n, v: np.prod(v[0], keepdims=bool(n.number("keepdims", 1))),
    "Reshape": lambda n, v: v[0].reshape([int(x) for x in v[1]]),
    "Slice": _slice,
    "Squeeze": lambda n, v: v[0].reshape([s for s in v[0].shape if s != 1]),
    "Sub": lambda n, v: v[0] - v[1],
    "Unsqueeze": lambda n, v: np.expand_dims(v[0], tuple(int(a) for a in v[1])),
    "Where": lambda n, v: np.where(v[0], v[1], v[2]),
}
