"""LaProp and Adam whose warm-up and bias correction belong to each parameter.

A part that starts to learn late, because a stage of training freezes it, begins with a warm-up
and a bias correction of its own.  The counts are tensors on the parameter's device, so a step
never waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


class ParameterGroup(NamedTuple):
    """Weights that are trained together."""

    parameters: list[nn.Parameter]
    lr: float | None = None  #: learning rate; None: as the settings of the optimiser say
    clip: float | None = None  #: largest norm of Adam's gradient; None: as the settings say

    @classmethod
    def of(cls, module: nn.Module) -> ParameterGroup:
        """The trained weights of ``module``, at the rates of the settings."""
        return cls([p for p in module.parameters() if p.requires_grad])


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
    if norms.device.type != "cpu":
        torch._foreach_mul_(gradients, list(factors.unbind()))
    else:  # where a factor can be looked at without waiting, few gradients need one
        for gradient, factor in zip(gradients, factors.tolist(), strict=True):
            if factor != 1.0:
                gradient.mul_(factor)
    return norms.square().sum().sqrt()


def _in_one_pass(*tensors: list[Tensor]) -> bool:
    """Whether torch's fused kernel takes lists of tensors (...), of the same shapes in each."""
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors[0]) and all(
        t.is_contiguous() for row in tensors for t in row
    )


def _each(numbers: Tensor) -> tuple[Tensor, ...]:
    """() float32 of each of (P,): of float64, every use would convert it again."""
    return numbers.float().unbind()


class CountingOptimizer(Optimizer):
    """Keeps two moments of each parameter's gradients, and a count of its updates on its device.

    Args:
        parameters: the weights to train, or groups of them with rates of their own.
        defaults: settings of a group that says none; at least ``lr``, ``warmup``, ``decay_after``.
    """

    count, first, second = "updates", "momentum", "square"  # names in a checkpoint

    def __init__(self, parameters: Parameters, defaults: dict[str, Any]) -> None:
        self.norm = torch.zeros(())  #: of the last gradient, before clipping
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients that ``backward`` left; parameters without one are skipped."""
        if closure is not None:
            raise ValueError(f"{type(self).__name__} takes no closure: call backward first")
        norms = []
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                gradients = [p.grad for p in parameters]
                norms.append(self._step_group(group, parameters, gradients))
        if norms:
            self.norm = torch.stack(norms).square().sum().sqrt()

    def _step_group(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Tensor:
        """() norm of ``gradients`` (...), of ``parameters`` (...), before clipping."""
        raise NotImplementedError

    def _counted(self, parameters: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """(P,) float64 updates of each parameter, this one included, and its two moments."""
        for p in parameters:
            if not self.state[p]:
                count = torch.zeros((), dtype=torch.float32, device=p.device)
                moments = {self.first: torch.zeros_like(p), self.second: torch.zeros_like(p)}
                self.state[p] = {self.count: count} | moments
        counts, firsts, seconds = (
            [self.state[p][name] for p in parameters]
            for name in (self.count, self.first, self.second)
        )
        torch._foreach_add_(counts, 1.0)
        return torch.stack(counts).double(), firsts, seconds

    @staticmethod
    def _rates(group: dict[str, Any], updates: Tensor) -> Tensor:
        """(P,) learning rates after ``updates`` (P,): in the warm-up they rise linearly.

        After ``decay_after`` updates they fall as 1 / sqrt(updates).

        Source: Vaswani et al. 2017, arXiv:1706.03762, equation 3, which has one number for both.
        """
        rates = group["lr"] * (updates / max(1, group["warmup"])).clamp_max(1.0)
        if group["decay_after"] is None:
            return rates
        return rates * (group["decay_after"] / updates).clamp_max(1.0).sqrt()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken, at the rates that this optimiser was made with.

        Counts of whole groups, in old checkpoints, go to their parameters.
        """
        groups = [dict(group) for group in self.param_groups]
        held = {index: dict(state) for index, state in state_dict["state"].items()}
        for group in state_dict["param_groups"]:
            for index in group["params"]:
                if index in held and self.count not in held[index]:
                    held[index][self.count] = torch.tensor(float(group["updates"]))
        super().load_state_dict({**state_dict, "state": held})
        self.param_groups[:] = groups
        for p, state in self.state.items():
            state[self.count] = torch.as_tensor(
                state[self.count], dtype=torch.float32, device=p.device
            )


class LaProp(CountingOptimizer):
    """Divides gradients by their root mean square, then takes momentum over the quotients.

    Args:
        parameters: the weights to train, or groups of them with rates of their own.
        lr: learning rate after warm-up; the other settings are fields of ``OptimConfig``.

    Source: Ziyin et al. 2020, arXiv:2002.04839, with DreamerV3's numbers as defaults.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        lr: float = 4e-5,
        warmup: int = 1000,
        decay_after: int | None = None,
        agc: float = 0.3,
        agc_floor: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-20,
    ) -> None:
        defaults = dict(
            lr=lr, warmup=warmup, decay_after=decay_after, agc=agc, agc_floor=agc_floor,
            beta1=beta1, beta2=beta2, eps=eps,
        )  # fmt: skip
        super().__init__(parameters, defaults)

    def _step_group(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Tensor:
        beta1, beta2 = group["beta1"], group["beta2"]
        updates, momenta, squares = self._counted(parameters)
        norm = clip_adaptively(gradients, parameters, ratio=group["agc"], floor=group["agc_floor"])
        rates = self._rates(group, updates) / (1.0 - beta1**updates)
        if _in_one_pass(parameters, gradients, momenta, squares):
            self._average_in_one_pass(group, gradients, momenta, squares, parameters)
            for p, momentum, rate in zip(parameters, momenta, rates.tolist(), strict=True):
                p.add_(momentum, alpha=-rate)
            return norm
        # tensors, not numbers of Python, each use of which would make a tensor of its own
        decay, eps = (squares[0].new_full((), number) for number in (beta2, group["eps"]))
        torch._foreach_mul_(squares, decay)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta2)
        scale = torch._foreach_div(squares, _each(1.0 - beta2**updates))
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, [eps] * len(scale))  # one alone would be read on the host
        torch._foreach_div_(gradients, scale)
        torch._foreach_lerp_(momenta, gradients, 1.0 - beta1)
        torch._foreach_sub_(parameters, torch._foreach_mul(momenta, _each(rates)))
        return norm

    def _average_in_one_pass(
        self,
        group: dict[str, Any],
        gradients: list[Tensor],
        momenta: list[Tensor],
        squares: list[Tensor],
        parameters: list[Tensor],
    ) -> None:
        """Update ``squares`` and ``momenta`` (...) by ``gradients`` (...), and spoil these.

        torch's AdamW in one pass over memory, without a momentum of its own, is the average that
        LaProp takes of the quotients: from m it makes (1 - rate * decay) m - rate * quotient, and
        the signs fit for a decay of 1 and gradients to climb.
        """
        counts = [self.state[p][self.count] for p in parameters]
        torch._fused_adamw_(
            momenta, gradients, gradients, squares, [], counts, lr=1.0 - group["beta1"],
            beta1=0.0, beta2=group["beta2"], weight_decay=1.0, eps=group["eps"], amsgrad=False,
            maximize=True,
        )  # fmt: skip


class Adam(CountingOptimizer):
    """Adam whose weight decay is apart from the gradient, behind a limit on the gradient's norm.

    Args:
        parameters: the weights to train, or groups of them with rates of their own.
        lr: learning rate after warm-up; the other settings are fields of ``OptimConfig``.
        clip: largest norm of the gradients of all parameters together.
        weight_decay: share of a weight that an update of rate 1 takes away.
        decay_by_rate: False: share that every update takes away, whatever its rate.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101; state as of torch.optim.AdamW.  Decay per
    update: DreamerV2 (code), arXiv:2010.02193.
    """

    count, first, second = "step", "exp_avg", "exp_avg_sq"

    def __init__(
        self,
        parameters: Parameters,
        *,
        lr: float,
        warmup: int,
        decay_after: int | None = None,
        clip: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        decay_by_rate: bool = True,
    ) -> None:
        self.clip, self.decay_by_rate = clip, decay_by_rate
        defaults = dict(
            lr=lr, warmup=warmup, decay_after=decay_after, betas=betas, eps=eps,
            weight_decay=weight_decay,
        )  # fmt: skip
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Clip the gradients that ``backward`` left to a common norm, and apply them."""
        every = [p for group in self.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(every, self.clip, foreach=True)
        super().step(closure)
        self.norm = norm.to(every[0].device)  # without any gradient, it is a zero of the CPU

    def _step_group(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> Tensor:
        beta1, beta2 = group["betas"]
        updates, means, squares = self._counted(parameters)
        rates = self._rates(group, updates)
        if group["weight_decay"]:
            shares = rates if self.decay_by_rate else torch.ones_like(rates)
            torch._foreach_mul_(parameters, _each(1.0 - shares * group["weight_decay"]))
        torch._foreach_lerp_(means, gradients, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - beta2)
        scale = torch._foreach_sqrt(squares)
        torch._foreach_div_(scale, _each((1.0 - beta2**updates).sqrt()))
        torch._foreach_add_(scale, group["eps"])
        steps = torch._foreach_div(means, scale)
        torch._foreach_mul_(steps, _each(rates / (1.0 - beta1**updates)))
        torch._foreach_sub_(parameters, steps)
        return self.norm
