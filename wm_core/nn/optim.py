"""LaProp behind adaptive gradient clipping, with fused multi-tensor operations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def clip_adaptively(
    gradients: list[Tensor], parameters: list[Tensor], *, ratio: float, floor: float
) -> Tensor:
    """Scale each gradient in place so that its norm is at most ``ratio`` of its parameter's.

    Args:
        gradients: any shapes (...), one per parameter.
        parameters: of the same shapes (...).
        ratio: largest allowed |gradient| / max(floor, |parameter|), per tensor.
        floor: smallest norm that a parameter counts with.

    Returns:
        () norm over all gradients before clipping.

    Source: Brock et al. 2021, arXiv:2102.06171; per tensor instead of per row, as DreamerV3 does.
    """
    norms = torch.stack(torch._foreach_norm(gradients))
    limits = torch.stack(torch._foreach_norm(parameters)).clamp_min(floor) * ratio
    factors = (limits / norms.clamp_min(1e-6)).clamp_max(1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))
    return norms.square().sum().sqrt()


class LaProp(Optimizer):
    """RMS-normalised gradients, then momentum over them, both without start-up bias.

    Args:
        parameters: what is trained, or groups of it with rates of their own.
        lr: learning rate after warm-up.
        warmup: updates over which the rate rises linearly from ``lr`` / ``warmup``.
        agc: ratio of adaptive gradient clipping.
        agc_floor: its floor on parameter norms.
        beta1: of the momentum.
        beta2: of the mean square.
        eps: added to the root mean square.

    Source: Ziyin et al. 2020, arXiv:2002.04839, with DreamerV3's numbers as defaults.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float = 4e-5,
        warmup: int = 1000,
        agc: float = 0.3,
        agc_floor: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-20,
    ) -> None:
        self.norm = torch.zeros(())  #: of the last gradient, before clipping
        defaults = dict(
            lr=lr, warmup=warmup, agc=agc, agc_floor=agc_floor, beta1=beta1, beta2=beta2, eps=eps
        )
        super().__init__(parameters, defaults | {"updates": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients that ``backward`` left; parameters without one are skipped."""
        if closure is not None:
            raise ValueError("LaProp takes no closure: call backward first")
        norms = []
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                norms.append(self._step_group(group, parameters))
        if norms:
            self.norm = torch.stack(norms).square().sum().sqrt()

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> Tensor:
        """() norm of the gradients of ``parameters``, each (...), before clipping."""
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {"square": torch.zeros_like(p), "momentum": torch.zeros_like(p)}
        squares = [self.state[p]["square"] for p in parameters]
        momenta = [self.state[p]["momentum"] for p in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        group["updates"] += 1
        n, beta1, beta2 = group["updates"], group["beta1"], group["beta2"]
        norm = clip_adaptively(gradients, parameters, ratio=group["agc"], floor=group["agc_floor"])
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta2)
        scale = torch._foreach_div(squares, 1.0 - beta2**n)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_div_(gradients, scale)
        torch._foreach_lerp_(momenta, gradients, 1.0 - beta1)
        rate = group["lr"] * min(1.0, n / max(1, group["warmup"]))
        torch._foreach_add_(parameters, momenta, alpha=-rate / (1.0 - beta1**n))
        return norm
