"""Takes the gradient of a loss as soon as it is computed, so that its activations need not wait.

A loss that is a sum over rows, and needs nothing of what comes after it, can be differentiated a
few rows at a time: only the gradients of its inputs and weights are kept until the backward pass,
which multiplies them with what arrives.  Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor


def sum_at_once(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    parameters: Iterable[Tensor],
    rows: int | None,
) -> Tensor:
    """() float32 sum of ``function(*inputs)`` (N,), with its gradient.

    Args:
        function: of inputs with n of the N rows each; gives (n,), row by row.
        inputs: (N, ...) each.
        parameters: the weights that ``function`` uses and that are trained.
        rows: whose gradient is taken at a time, from 1; None leaves everything to the backward
            pass, as torch does.
    """
    if rows is None or not len(inputs[0]):
        return function(*inputs).float().sum()
    total: Tensor = _SumAtOnce.apply(function, rows, len(inputs), *inputs, *parameters)
    return total


class _SumAtOnce(torch.autograd.Function):
    """Has the sum of a function over rows, and the gradient that was taken with it."""

    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Tensor], rows: int, count: int, *tensors: Tensor
    ) -> Tensor:
        needed = ctx.needs_input_grad[3:]
        inputs, weights = tensors[:count], tensors[count:]
        trained = [w for w, need in zip(weights, needed[count:], strict=True) if need]
        sums = [torch.zeros_like(w) for w in trained]
        of_rows: list[list[Tensor]] = []
        total = torch.zeros((), device=inputs[0].device)
        for start in range(0, len(inputs[0]), rows):
            own = [t[start : start + rows].detach() for t in inputs]
            moved = [t.requires_grad_() for t, need in zip(own, needed, strict=False) if need]
            with torch.enable_grad():
                part = function(*own).float().sum()
            total += part.detach()
            if not moved and not trained:
                continue
            found = torch.autograd.grad(part, [*moved, *trained], materialize_grads=True)
            of_rows.append(list(found[: len(moved)]))
            for kept, new in zip(sums, found[len(moved) :], strict=True):
                kept += new
        grads = iter([torch.cat(parts) for parts in zip(*of_rows, strict=True)] + sums)
        ctx.needed = needed
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Any, ...]:
        grads = iter(ctx.saved_tensors)
        found = [outer[0] * next(grads) if need else None for need in ctx.needed]
        return (None, None, None, *found)
