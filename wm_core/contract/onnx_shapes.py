"""Says which shape each operator's answers have, from the shapes of what it reads.

Every size in a policy is a number that its file states: it never depends on what a camera saw.  So
memory and work of a step are known before anything runs, see ``onnx_sizes``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int, ...]


class Unknown(Exception):
    """Reports a size that does not follow from the file alone, or that fits nothing."""


class Tensor(NamedTuple):
    """Describes a tensor before it exists: its shape, and its numbers where they are fixed."""

    shape: Shape
    value: np.ndarray | None = None  #: (...) what it holds whatever is observed; None: not known

    def ints(self) -> list[int]:
        """List its numbers; raises ``Unknown`` where they are not fixed."""
        if self.value is None or (self.value != np.floor(self.value)).any():
            raise Unknown("a size is computed from what is observed")
        return [int(x) for x in self.value.reshape(-1)]


class Node(NamedTuple):
    """Is one operator, with the names of what it reads and answers."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]  #: by name: int, float, str, lists of them, or an array (...)

    def number(self, name: str, default: int) -> int:
        """Give a number among the attributes."""
        return int(self.attributes.get(name, default))

    def ints(self, name: str, default: Sequence[int]) -> list[int]:
        """Give a list of numbers among the attributes."""
        return list(self.attributes.get(name, default))


Given = Sequence[Tensor | None]  #: what a node reads, in order; None where it is left out
Rule = Callable[[Node, Given], list[Shape]]


def given_at(given: Given, at: int) -> Tensor:
    """Give what a node reads (...) at one place; raises ``Unknown`` where that is left out."""
    found = given[at] if at < len(given) else None
    if found is None:
        raise Unknown(f"its input {at} is missing")
    return found


def has(given: Given, at: int) -> bool:
    """Tell whether a node reads anything at one place."""
    return at < len(given) and given[at] is not None


def axis_of(axis: int, rank: int) -> int:
    """Count an axis from the front; raises ``Unknown`` where there is none such."""
    if not -rank <= axis < rank:
        raise Unknown(f"axis {axis} of {rank} axes")
    return axis % rank


def same(node: Node, given: Given) -> list[Shape]:
    """Give every answer the shape of what is read first."""
    return [given_at(given, 0).shape] * len(node.outputs)


def _elementwise(node: Node, given: Given) -> list[Shape]:
    return [broadcast([t.shape for t in given if t is not None])]


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Join shapes as operators on elements do, without making anything of that size."""
    rank = max(len(shape) for shape in shapes)
    joined = []
    for sizes in zip(*((1,) * (rank - len(s)) + s for s in shapes), strict=True):
        others = {*sizes} - {1}
        if len(others) > 1:
            raise Unknown(f"shapes {[*shapes]} do not fit each other")
        joined.append(others.pop() if others else 1)
    return tuple(joined)


def _reduce(node: Node, given: Given) -> list[Shape]:
    shape, keep = given_at(given, 0).shape, node.number("keepdims", 1)
    axes = [axis_of(a, len(shape)) for a in given_at(given, 1).ints()] if has(given, 1) else []
    if not axes and not node.number("noop_with_empty_axes", 0):
        axes = [*range(len(shape))]
    return [_reduced(shape, axes, keep)]


def _reduced(shape: Shape, axes: Sequence[int], keep: int) -> Shape:
    return tuple(
        1 if at in axes else size for at, size in enumerate(shape) if keep or at not in axes
    )


def _best(node: Node, given: Given) -> list[Shape]:
    shape = given_at(given, 0).shape
    return [
        _reduced(shape, [axis_of(node.number("axis", 0), len(shape))], node.number("keepdims", 1))
    ]


def _transpose(node: Node, given: Given) -> list[Shape]:
    shape = given_at(given, 0).shape
    perm = node.ints("perm", range(len(shape))[::-1])
    if sorted(perm) != [*range(len(shape))]:
        raise Unknown(f"axes {perm} of {len(shape)} axes")
    return [tuple(shape[at] for at in perm)]


def _concat(node: Node, given: Given) -> list[Shape]:
    shapes = [given_at(given, at).shape for at in range(len(given))]
    axis = axis_of(node.number("axis", 0), len(shapes[0]))
    if len({(*s[:axis], *s[axis + 1 :]) for s in shapes}) > 1:
        raise Unknown(f"shapes {shapes} do not fit each other")
    return [(*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])]


def _split(node: Node, given: Given) -> list[Shape]:
    shape = given_at(given, 0).shape
    axis, n = axis_of(node.number("axis", 0), len(shape)), len(node.outputs)
    size = -(-shape[axis] // n)
    sizes = [min(size, max(0, shape[axis] - k * size)) for k in range(n)]
    if has(given, 1):
        sizes = given_at(given, 1).ints()
    if len(sizes) != n or sum(sizes) != shape[axis] or min(sizes) < 0:
        raise Unknown(f"sizes {sizes} of {shape[axis]}")
    return [(*shape[:axis], part, *shape[axis + 1 :]) for part in sizes]


def _slice(node: Node, given: Given) -> list[Shape]:
    shape = [*given_at(given, 0).shape]
    starts, ends = given_at(given, 1).ints(), given_at(given, 2).ints()
    axes = given_at(given, 3).ints() if has(given, 3) else [*range(len(starts))]
    steps = given_at(given, 4).ints() if has(given, 4) else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_of(axis, len(shape))
        shape[axis] = len(range(*slice(start, end, step).indices(shape[axis])))
    return [tuple(shape)]


def _gather(node: Node, given: Given) -> list[Shape]:
    shape, at = given_at(given, 0).shape, given_at(given, 1).shape
    axis = axis_of(node.number("axis", 0), len(shape))
    return [(*shape[:axis], *at, *shape[axis + 1 :])]


def _gather_elements(node: Node, given: Given) -> list[Shape]:
    return [given_at(given, 1).shape]


def _gather_nd(node: Node, given: Given) -> list[Shape]:
    shape, at = given_at(given, 0).shape, given_at(given, 1).shape
    taken = node.number("batch_dims", 0) + at[-1]
    if not 0 <= taken <= len(shape):
        raise Unknown(f"indices of {at[-1]} numbers into {shape}")
    return [(*at[:-1], *shape[taken:])]


def _squeeze(node: Node, given: Given) -> list[Shape]:
    shape = given_at(given, 0).shape
    axes = [at for at, size in enumerate(shape) if size == 1]
    if has(given, 1):
        axes = [axis_of(a, len(shape)) for a in given_at(given, 1).ints()]
    if any(shape[axis] != 1 for axis in axes):
        raise Unknown(f"axes {axes} of {shape} are not 1")
    return [_reduced(shape, axes, 0)]


def _unsqueeze(node: Node, given: Given) -> list[Shape]:
    shape, axes = given_at(given, 0).shape, given_at(given, 1).ints()
    rank = len(shape) + len(axes)
    new, left = {axis_of(a, rank) for a in axes}, iter(shape)
    if len(new) != len(axes):
        raise Unknown(f"axes {axes} stand twice")
    return [tuple(1 if at in new else next(left) for at in range(rank))]


def _flatten(node: Node, given: Given) -> list[Shape]:
    shape, axis = given_at(given, 0).shape, node.number("axis", 1)
    axis = axis if axis == len(shape) else axis_of(axis, len(shape))
    return [(math.prod(shape[:axis]), math.prod(shape[axis:]))]


def _reshape(node: Node, given: Given) -> list[Shape]:
    shape, wanted = given_at(given, 0).shape, given_at(given, 1).ints()
    if not node.number("allowzero", 0):
        wanted = [shape[at] if size == 0 else size for at, size in enumerate(wanted)]
    total, known = math.prod(shape), math.prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known > 0 and total % known == 0:
        wanted = [total // known if size == -1 else size for size in wanted]
    if any(size < 0 for size in wanted) or math.prod(wanted) != total:
        raise Unknown(f"{shape} as {wanted}")
    return [tuple(wanted)]


def _expand(node: Node, given: Given) -> list[Shape]:
    return [broadcast([given_at(given, 0).shape, as_shape(given_at(given, 1).ints())])]


def as_shape(numbers: Sequence[int]) -> Shape:
    """Take numbers as a shape; raises ``Unknown`` where one is negative."""
    if any(size < 0 for size in numbers):
        raise Unknown(f"sizes {[*numbers]}")
    return tuple(numbers)


def _tile(node: Node, given: Given) -> list[Shape]:
    shape, times = given_at(given, 0).shape, as_shape(given_at(given, 1).ints())
    return [tuple(size * n for size, n in zip(shape, times, strict=True))]


def _pad(node: Node, given: Given) -> list[Shape]:
    shape, pads = [*given_at(given, 0).shape], given_at(given, 1).ints()
    axes = given_at(given, 3).ints() if has(given, 3) else [*range(len(shape))]
    for axis, before, after in zip(axes, pads, pads[len(axes) :], strict=False):
        shape[axis_of(axis, len(shape))] += before + after
    if len(pads) != 2 * len(axes):
        raise Unknown(f"{len(pads)} numbers for {len(axes)} axes")
    return [as_shape(shape)]


def _depth_to_space(node: Node, given: Given) -> list[Shape]:
    n, c, h, w = given_at(given, 0).shape
    block = node.number("blocksize", 0)
    return [(n, c // (block * block), h * block, w * block)]


def _space_to_depth(node: Node, given: Given) -> list[Shape]:
    n, c, h, w = given_at(given, 0).shape
    block = node.number("blocksize", 0)
    return [(n, c * block * block, h // block, w // block)]


def _shape(node: Node, given: Given) -> list[Shape]:
    rank = len(given_at(given, 0).shape)
    return [(len(range(rank)[slice(node.number("start", 0), node.number("end", rank))]),)]


def _size(node: Node, given: Given) -> list[Shape]:
    return [()]


def _constant(node: Node, given: Given) -> list[Shape]:
    (value,) = node.attributes.values()
    return [np.shape(value)]


def _constant_of_shape(node: Node, given: Given) -> list[Shape]:
    return [as_shape(given_at(given, 0).ints())]


def _range(node: Node, given: Given) -> list[Shape]:
    start, limit, step = (given_at(given, at).ints()[0] for at in range(3))
    return [(len(range(start, limit, step)),)]


def _one_hot(node: Node, given: Given) -> list[Shape]:
    shape, (depth,) = given_at(given, 0).shape, given_at(given, 1).ints()
    axis = axis_of(node.number("axis", -1), len(shape) + 1)
    return [as_shape((*shape[:axis], depth, *shape[axis:]))]


def _top_k(node: Node, given: Given) -> list[Shape]:
    shape, (k,) = given_at(given, 0).shape, given_at(given, 1).ints()
    axis = axis_of(node.number("axis", -1), len(shape))
    return [as_shape((*shape[:axis], k, *shape[axis + 1 :]))] * 2


def _product(node: Node, given: Given) -> list[Shape]:
    a, b = given_at(given, 0).shape, given_at(given, 1).shape
    left, right = a if len(a) > 1 else (1, *a), b if len(b) > 1 else (*b, 1)
    if left[-1] != right[-2]:
        raise Unknown(f"{a} times {b}")
    lead = broadcast([left[:-2] or (1,), right[:-2] or (1,)])
    lead = lead if len(left) > 2 or len(right) > 2 else ()
    rows, columns = left[-2:-1] if len(a) > 1 else (), right[-1:] if len(b) > 1 else ()
    return [(*lead, *rows, *columns)]


def _gemm(node: Node, given: Given) -> list[Shape]:
    a, b = given_at(given, 0).shape, given_at(given, 1).shape
    rows, inner = a[::-1] if node.number("transA", 0) else a
    other, columns = b[::-1] if node.number("transB", 0) else b
    if inner != other:
        raise Unknown(f"{a} times {b}")
    return [(rows, columns)]


def _einsum(node: Node, given: Given) -> list[Shape]:
    left, arrow, right = str(node.attributes["equation"]).replace(" ", "").partition("->")
    terms, sizes = left.split(","), dict[str, int]()
    for at, term in enumerate(terms):
        for letter, size in zip(term, given_at(given, at).shape, strict=True):
            if not letter.isalpha() or sizes.setdefault(letter, size) != size:
                raise Unknown(f"equation {left!r} does not fit what it reads")
    if not arrow:
        raise Unknown(f"equation {left!r} has no answer")
    return [tuple(sizes[letter] for letter in right)]


#: rule -> the operators that follow it
_FOLLOW: dict[Rule, str] = {
    same: """
        Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot Cast CastLike Ceil Celu
        Clip Cos Cosh CumSum DequantizeLinear Elu Erf Exp Floor HardSigmoid
        HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN LeakyRelu Log LogSoftmax
        LpNormalization Mish Neg Not PRelu QuantizeLinear Reciprocal Relu Round ScatterElements
        ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh
        ThresholdedRelu Trilu
    """,
    _elementwise: """
        Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
        LessOrEqual Max Mean Min Mod Mul Or Pow Sub Sum Where Xor
    """,
    _reduce: """
        ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
        ReduceSum ReduceSumSquare
    """,
    _best: "ArgMax ArgMin",
    _product: "MatMul MatMulInteger",
    _transpose: "Transpose",
    _concat: "Concat",
    _split: "Split",
    _slice: "Slice",
    _gather: "Gather",
    _gather_elements: "GatherElements",
    _gather_nd: "GatherND",
    _squeeze: "Squeeze",
    _unsqueeze: "Unsqueeze",
    _flatten: "Flatten",
    _reshape: "Reshape",
    _expand: "Expand",
    _tile: "Tile",
    _pad: "Pad",
    _depth_to_space: "DepthToSpace",
    _space_to_depth: "SpaceToDepth",
    _shape: "Shape",
    _size: "Size",
    _constant: "Constant",
    _constant_of_shape: "ConstantOfShape",
    _range: "Range",
    _one_hot: "OneHot",
    _top_k: "TopK",
    _gemm: "Gemm",
    _einsum: "Einsum",
}

RULES: dict[str, Rule] = {op: rule for rule, ops in _FOLLOW.items() for op in ops.split()}
