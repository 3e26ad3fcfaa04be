"""Convolutions of stride 2, with gradients of their own that are faster on CPUs than torch's.

torch's gradient of a transposed convolution's bias takes as long there as the two others
together; here it is a sum.  In bfloat16 its gradient of a weight with many channels takes up to
three times as long as one product of matrices, which is what it is here.  Tests compare both.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wm_core.nn.blocks import products_dtype

_PATCH = 2048  #: numbers in a patch from which one product is faster


def convolve(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """(N, O, h, w) convolution of stride 2 of ``x`` (N, I, H, W).

    Args:
        x: (N, I, H, W).
        weight: (O, I, k, k).
        bias: (O,).
        padding: pixels of zeros at each side.
    """
    dtype = products_dtype(x.device)
    if _plain(x) or not _wide(weight, dtype):
        return F.conv2d(x, weight, bias, 2, padding)
    return _strided(x, weight, bias, padding, False)


def convolve_transposed(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """(N, O, H, W) transposed convolution of stride 2 of ``x`` (N, I, h, w).

    Args:
        x: (N, I, h, w).
        weight: (I, O, k, k).
        bias: (O,).
        padding: pixels that are cut off at each side.
    """
    if _plain(x):
        return F.conv_transpose2d(x, weight, bias, 2, padding)
    return _strided(x, weight, bias, padding, True)


def _plain(x: Tensor) -> bool:
    return x.device.type != "cpu" or not torch.is_grad_enabled() or torch.compiler.is_compiling()


def _wide(weight: Tensor, dtype: torch.dtype | None) -> bool:
    return dtype is torch.bfloat16 and weight[0].numel() >= _PATCH


def _strided(x: Tensor, weight: Tensor, bias: Tensor, padding: int, transposed: bool) -> Tensor:
    dtype = products_dtype(x.device)
    inputs = (t.to(dtype=dtype) for t in (x, weight, bias))
    result: Tensor = _Strided.apply(*inputs, padding, transposed)
    return result


class _Strided(torch.autograd.Function):
    """Computes either of the two; its gradient of the bias is a sum."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.transposed = padding, transposed
        with torch.autocast("cpu", enabled=False):
            if transposed:
                return F.conv_transpose2d(x, weight, bias, 2, padding)
            return F.conv2d(x, weight, bias, 2, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), gradient = ctx.saved_tensors, gradients[0]
        of_input, of_weight, of_bias = ctx.needs_input_grad[:3]
        wide = of_weight and _wide(weight, weight.dtype)
        found = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, [2, 2], [ctx.padding] * 2, [1, 1], ctx.transposed,
            [0, 0], 1, [of_input, of_weight and not wide, False],
        )  # fmt: skip
        own = found[1]
        if wide:
            large, small = (gradient, x) if ctx.transposed else (x, gradient)
            own = _of_weight(large, small, weight.shape[-1], ctx.padding)
        return found[0], own, gradient.sum((0, 2, 3)) if of_bias else None, None, None


def _of_weight(large: Tensor, small: Tensor, kernel: int, padding: int) -> Tensor:
    """(S, L, k, k) gradient of the weight, as the product of one side with the other's patches.

    Args:
        large: (N, L, H, W), what a convolution reads or the gradient of what its transpose gives.
        small: (N, S, h, w), the other of the two.
        kernel: k, side of a patch.
        padding: pixels of zeros at each side of ``large``.
    """
    (n, channels), (height, width) = large.shape[:2], small.shape[2:]
    padded = F.pad(large.permute(0, 2, 3, 1), (0, 0, *[padding] * 4)).contiguous()
    rows, row, pixel, _ = padded.stride()
    patches = padded.as_strided(
        (n, height, width, kernel, kernel * channels), (rows, 2 * row, 2 * pixel, row, 1)
    )
    others = small.permute(0, 2, 3, 1).reshape(n * height * width, -1)
    product = others.T @ patches.reshape(len(others), -1)
    return product.view(-1, kernel, kernel, channels).permute(0, 3, 1, 2)
