"""Says which shape the answers of whole layers have: convolutions, pools, recurrences, resizes."""

from __future__ import annotations

import math

from wm_core.contract.onnx_shapes import (
    Given,
    Node,
    Rule,
    Shape,
    Unknown,
    as_shape,
    axis_of,
    given_at,
)


def _window(node: Node, given: Given) -> list[Shape]:
    """Slide a window over the axes behind batch and channels, as a convolution or pool does."""
    shape = given_at(given, 0).shape
    weights = given_at(given, 1).shape if node.op == "Conv" else ()
    spatial, n = shape[2:], len(shape) - 2
    kernel = node.ints("kernel_shape", weights[2:])
    steps, dilations = node.ints("strides", [1] * n), node.ints("dilations", [1] * n)
    pads, auto = node.ints("pads", [0] * 2 * n), node.attributes.get("auto_pad", "NOTSET")
    if len(pads) != 2 * n or min([*steps, *kernel, *dilations, 1]) < 1 or min([*pads, 0]) < 0:
        raise Unknown(f"strides {steps}, pads {pads}")
    sizes = []
    for at, (size, k, step, wide) in enumerate(
        zip(spatial, kernel, steps, dilations, strict=True)
    ):
        padded = size + (pads[at] + pads[at + n] if auto == "NOTSET" else 0)
        free = padded - wide * (k - 1) - 1
        if str(auto).startswith("SAME"):
            free = (-(-size // step) - 1) * step
        windows = (-(-free // step) if node.number("ceil_mode", 0) else free // step) + 1
        inside = size + (pads[at] if auto == "NOTSET" else 0)  # where the last one may begin
        sizes.append(windows - int(windows > 1 and (windows - 1) * step >= inside))
    channels = weights[0] if node.op == "Conv" else shape[1]
    return [as_shape((shape[0], channels, *sizes))] * len(node.outputs)


def _transposed(node: Node, given: Given) -> list[Shape]:
    shape, weights = given_at(given, 0).shape, given_at(given, 1).shape
    n = len(shape) - 2
    steps, dilations = node.ints("strides", [1] * n), node.ints("dilations", [1] * n)
    pads, more = node.ints("pads", [0] * 2 * n), node.ints("output_padding", [0] * n)
    kernel, auto = (
        node.ints("kernel_shape", weights[2:]),
        node.attributes.get("auto_pad", "NOTSET"),
    )
    sizes = node.ints("output_shape", ())
    if not sizes:
        for at, (size, step) in enumerate(zip(shape[2:], steps, strict=True)):
            whole = step * (size - 1) + more[at] + (kernel[at] - 1) * dilations[at] + 1
            whole -= pads[at] + pads[at + n] if auto == "NOTSET" else 0
            sizes.append(size * step if str(auto).startswith("SAME") else whole)
    return [as_shape((shape[0], weights[1] * node.number("group", 1), *sizes[-n:]))]


def _global_pool(node: Node, given: Given) -> list[Shape]:
    shape = given_at(given, 0).shape
    return [(*shape[:2], *(1 for _ in shape[2:]))]


def _recurrent(node: Node, given: Given) -> list[Shape]:
    steps, batch, _ = given_at(given, 0).shape
    if node.number("layout", 0):
        raise Unknown("layout 1")
    ways = 2 if node.attributes.get("direction", "forward") == "bidirectional" else 1
    hidden = given_at(given, 2).shape[-1]
    last = (ways, batch, hidden)
    return [as_shape((steps, ways, batch, hidden)), last, last]


def _resize(node: Node, given: Given) -> list[Shape]:
    shape = given_at(given, 0).shape
    if node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Unknown("an aspect ratio that is kept")
    axes = [axis_of(a, len(shape)) for a in node.ints("axes", range(len(shape)))]
    told = given[2] if len(given) > 2 else None
    if len(given) > 3 and given[3] is not None:
        sizes = given[3].ints()
    elif told is not None and told.value is not None:
        scales = [float(x) for x in told.value.reshape(-1)]
        sizes = [math.floor(shape[a] * x) for a, x in zip(axes, scales, strict=True)]
    else:
        raise Unknown("a size is computed from what is observed")
    resized = dict(zip(axes, sizes, strict=True))
    return [as_shape([resized.get(at, size) for at, size in enumerate(shape)])]


def _layer_norm(node: Node, given: Given) -> list[Shape]:
    shape = given_at(given, 0).shape
    axis = axis_of(node.number("axis", -1), len(shape))
    means = (*shape[:axis], *(1 for _ in shape[axis:]))
    return [shape, means, means][: len(node.outputs)]


def _to_8_bits(node: Node, given: Given) -> list[Shape]:
    return [given_at(given, 0).shape, (), ()]


LAYER_RULES: dict[str, Rule] = {
    "AveragePool": _window,
    "Conv": _window,
    "ConvTranspose": _transposed,
    "DynamicQuantizeLinear": _to_8_bits,
    "GRU": _recurrent,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LSTM": _recurrent,
    "LayerNormalization": _layer_norm,
    "MaxPool": _window,
    "RNN": _recurrent,
    "Resize": _resize,
}


def work_of(node: Node, given: Given, shapes: list[Shape]) -> int:
    """Estimate the multiplications of one node, and the numbers that it handles.

    Args:
        node: the operator.
        given: what it reads.
        shapes: of what it answers.
    """
    numbers = sum(math.prod(shape) for shape in shapes)
    numbers += sum(math.prod(t.shape) for t in given if t is not None)
    answer = math.prod(shapes[0])
    if node.op in ("MatMul", "MatMulInteger", "Gemm"):
        inner = given_at(given, 0).shape
        return numbers + answer * (inner[0] if node.number("transA", 0) else inner[-1])
    if node.op == "Conv":
        return numbers + answer * math.prod(given_at(given, 1).shape[1:])
    if node.op == "ConvTranspose":
        read, weights = given_at(given, 0).shape, given_at(given, 1).shape
        return numbers + math.prod(read) * math.prod(weights[1:])
    if node.op in ("AveragePool", "MaxPool"):
        return numbers + answer * math.prod(node.ints("kernel_shape", ()))
    if node.op in ("LSTM", "GRU", "RNN"):
        steps, batch, _ = given_at(given, 0).shape
        weights = math.prod(given_at(given, 1).shape) + math.prod(given_at(given, 2).shape)
        return numbers + steps * batch * weights
    if node.op == "Einsum":
        letters: dict[str, int] = {}
        for term, t in zip(str(node.attributes["equation"]).split("->")[0].split(","), given):  # noqa: B905
            letters |= dict(zip(term.strip(), t.shape if t is not None else (), strict=False))
        return numbers + math.prod(letters.values())
    return numbers


def scratch_of(node: Node, given: Given, shapes: list[Shape]) -> int:
    """Estimate the numbers that a node holds beside what it reads and answers."""
    if node.op == "Conv":  # windows are copied side by side
        kernel = given_at(given, 1).shape
        return math.prod(kernel[1:]) * math.prod(shapes[0][2:])
    if node.op == "ConvTranspose":
        read, kernel = given_at(given, 0).shape, given_at(given, 1).shape
        return math.prod(read[2:]) * math.prod(kernel[1:])
    return 0
