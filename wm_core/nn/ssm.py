"""Diagonal state-space layers: a parallel scan over time in training, one step in acting.

Complex numbers are pairs of real ones throughout, because ONNX has no complex type: a state is
(..., 2, P), real parts first.  Of each pair of conjugate states one is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from wm_core.nn.attention import drop
from wm_core.nn.blocks import Filled, Linear, forget
from wm_core.nn.transformer import Order

STEP_MIN, STEP_MAX = 1e-3, 1e-1  #: range of the initial step sizes


def hippo_frequencies(size: int) -> Tensor:
    """Compute frequencies (size / 2,), ascending, of the normal part of HiPPO (size, size).

    Its eigenvalues are -1/2 +- i times these.

    Source: S5, arXiv:2208.04933, section 4.3 and appendix B.1 (HiPPO-N).
    """
    if size % 2:
        raise ValueError(f"expected an even size of HiPPO blocks, got {size}")
    root = torch.sqrt(torch.arange(size, dtype=torch.float64) + 0.5)
    outer = torch.outer(root, root)
    # a skew-symmetric matrix has the imaginary eigenvalues that its singular values name twice
    skew = outer.triu(1) - outer.tril(-1)
    return torch.linalg.svdvals(skew).flip(0)[::2].float()


def _accumulate(
    re: Tensor, im: Tensor, link: Tensor, a_re: Tensor, a_im: Tensor
) -> tuple[Tensor, Tensor]:
    """Accumulate x[t] + link[t] a x[t-1] + ... (B, T, P) of the pair x, in log2(T) passes.

    ``link`` (B, T) bool is False where t takes nothing from before; ``a`` is a pair of (P,).
    """
    span = 1
    while span < re.shape[1]:
        cut = ~link[:, span:]
        old_re, old_im = forget(re[:, :-span], cut), forget(im[:, :-span], cut)
        new_re = re[:, span:] + a_re * old_re - a_im * old_im
        new_im = im[:, span:] + a_re * old_im + a_im * old_re
        re, im = torch.cat([re[:, :span], new_re], 1), torch.cat([im[:, :span], new_im], 1)
        link = torch.cat([link[:, :span], link[:, span:] & link[:, :-span]], 1)
        a_re, a_im = a_re * a_re - a_im * a_im, 2.0 * a_re * a_im
        span *= 2
    return re, im


class _Scan(torch.autograd.Function):
    """Computes x[t] = keep[t] a x[t-1] + drive[t]; its gradient is the same scan in reverse.

    Only the states are kept for the gradient, not the log2(T) passes.
    """

    @staticmethod
    def forward(
        ctx: Any, a_re: Tensor, a_im: Tensor, re: Tensor, im: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        re, im = _accumulate(re, im, keep, a_re, a_im)
        ctx.save_for_backward(a_re, a_im, re, im, keep)
        return re, im

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        a_re, a_im, re, im, keep = ctx.saved_tensors
        # in reverse, time t reads from t + 1 what t + 1 had read from t
        link = torch.cat([torch.zeros_like(keep[:, :1]), keep[:, 1:].flip(1)], 1)
        re_late, im_late = (g.flip(1) for g in gradients)
        g_re, g_im = (g.flip(1) for g in _accumulate(re_late, im_late, link, a_re, -a_im))
        cut = ~keep[:, 1:]
        old_re, old_im = forget(re[:, :-1], cut), forget(im[:, :-1], cut)
        slope_re = (g_re[:, 1:] * old_re + g_im[:, 1:] * old_im).sum((0, 1))
        slope_im = (g_im[:, 1:] * old_re - g_re[:, 1:] * old_im).sum((0, 1))
        return slope_re, slope_im, g_re, g_im, None


def scan(a: tuple[Tensor, Tensor], drive: Tensor, keep: Tensor, start: Tensor) -> Tensor:
    """Run x[t] = keep[t] a x[t-1] + drive[t] for all t at once.

    Args:
        a: real and imaginary part, (P,) each.
        drive: (B, T, 2, P).
        keep: (B, T) 1.0, or 0.0 where the state before is forgotten.
        start: (B, 2, P) state before the first time.

    Returns:
        (B, T, 2, P) states.
    """
    re, im = torch.cat([start.unsqueeze(1), drive], 1).unbind(2)
    link = F.pad(keep > 0.5, (1, 0))
    re, im = _Scan.apply(*a, re, im, link)  # type: ignore[no-untyped-call]
    return torch.stack([re[:, 1:], im[:, 1:]], 2)


class _LogStep(Filled):
    """Logarithms (P,) of step sizes, initialised uniformly between their bounds."""

    def __init__(self, states: int) -> None:
        super().__init__((states,), fan_in=1)

    def fill(self, generator: Generator) -> None:
        with torch.no_grad():
            low, high = math.log(STEP_MIN), math.log(STEP_MAX)
            self.weight.uniform_(low, high, generator=generator)


class Diagonal(nn.Module):
    """Runs a linear state-space model with P complex states in ``blocks`` equal blocks.

    Args:
        width: of input and output.
        state: P, complex states; half of each block's HiPPO matrix.
        blocks: how many HiPPO matrices make up the initial dynamics.

    Source: S5, arXiv:2208.04933; as used by R2I, arXiv:2403.04253.
    Deviates: input and output matrices are drawn in the eigenbasis (the same law, since that basis
    is unitary); decay is stored as a logarithm, so that no state can grow; the factor 2 of
    conjugate pairs is part of the output matrix.
    """

    def __init__(self, width: int, state: int, blocks: int) -> None:
        super().__init__()
        if state % blocks:
            raise ValueError(f"{state} states do not divide into {blocks} blocks")
        self.state = state
        self.log_step = _LogStep(state)
        self.log_decay = nn.Parameter(torch.full((state,), math.log(0.5)))
        self.frequency = nn.Parameter(hippo_frequencies(2 * state // blocks).repeat(blocks))
        self.drive = Linear(width, 2 * state, bias=False, scale=math.sqrt(0.5))
        self.read = Linear(2 * state, width, bias=False)
        self.direct = Filled((width,), fan_in=1)

    def forward(self, u: Tensor, keep: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``u`` (B, T, width) to (B, T, width) and states (B, T, 2, P), as in ``scan``."""
        a, gain = self.discretize(torch.zeros_like(self.log_decay))
        states = scan(a, self._driven(u, gain), keep, start.float())
        return self._out(u, states), states

    def step(self, u: Tensor, keep: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``u`` (N, width) to (N, width) and the next state (N, 2, P).

        ``start`` (N, 2, P) holds zeros already where ``keep`` (N,) is 0.0.
        """
        # a zero that depends on an input: what a graph computes from weights alone would be
        # folded into constants, and then no new weights could be put in their place
        (a_re, a_im), gain = self.discretize((keep - keep).unsqueeze(1))
        re, im = start.unbind(1)
        carried = torch.stack([a_re * re - a_im * im, a_re * im + a_im * re], 1)
        state = carried + self._driven(u, gain)
        return self._out(u, state), state

    def discretize(self, zero: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Compute the factors on state and input, two pairs of (..., P), by the bilinear rule.

        Args:
            zero: (..., P or 1) zeros; every result depends on them.
        """
        dt = torch.exp(self.log_step.weight + zero)
        half_re = -0.5 * dt * torch.exp(self.log_decay + zero)
        half_im = 0.5 * dt * self.frequency
        size = (1.0 - half_re).square() + half_im.square()
        a = (1.0 - half_re.square() - half_im.square()) / size, 2.0 * half_im / size
        return a, (dt * (1.0 - half_re) / size, dt * half_im / size)

    def _driven(self, u: Tensor, gain: tuple[Tensor, Tensor]) -> Tensor:
        """Compute what the input (..., width) adds to the state (..., 2, P)."""
        re, im = self.drive(u).float().chunk(2, -1)
        return torch.stack([gain[0] * re - gain[1] * im, gain[0] * im + gain[1] * re], -2)

    def _out(self, u: Tensor, state: Tensor) -> Tensor:
        return self.read(state.flatten(-2)) + self.direct.weight * u


class _Layer(nn.Module):
    """Applies a state-space model, GELU and a gated linear unit with a skip connection."""

    def __init__(self, width: int, state: int, blocks: int, order: Order, dropout: float) -> None:
        super().__init__()
        self.pre, self.dropout = order == "pre", dropout
        self.ssm = Diagonal(width, state, blocks)
        self.gate = Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, keep: Tensor, start: Tensor, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Map a whole sequence (B, T, width), or one step (N, width) of it."""
        run = self.ssm.step if x.ndim == 2 else self.ssm
        y, states = run(self.norm(x) if self.pre else x, keep, start)
        value, gate = self.gate(F.gelu(y)).chunk(2, -1)
        x = x + drop(value * torch.sigmoid(gate), self.dropout, generator)
        return (x if self.pre else self.norm(x)), states


class StateSpace(nn.Module):
    """Stacks state-space layers; the output is ``deter``, the carry holds the layers' states.

    The arguments are the fields of ``SSMConfig``, with ``width`` for the size of the output, and
    ``order``: normalise before each layer ("pre") or after each sum ("post").

    Source: R2I, arXiv:2403.04253, and S4WM, arXiv:2307.02064.
    """

    def __init__(
        self,
        *,
        width: int,
        state: int,
        layers: int,
        blocks: int = 8,
        order: Order = "post",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.state, self.outputs = state, width
        self.layers = nn.ModuleList(
            _Layer(width, state, blocks, order, dropout) for _ in range(layers)
        )

    def initial(self, batch: int) -> Tensor:
        """Make empty states (batch, layers, 2, P)."""
        return next(self.parameters()).new_zeros(batch, len(self.layers), 2, self.state)

    def forward(
        self,
        x: Tensor,
        is_first: Tensor,
        carry: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Process T inputs at once.

        Args:
            x: (B, T, width) inputs.
            is_first: (B, T) bool, where the states are set to zero before the input is read.
            carry: (B, layers, 2, P) states before the first input; None for zeros.
            generator: draws the dropout; None applies none.

        Returns:
            (B, T, width) deter, and the states (B, T, layers, 2, P) after each input;
            ``states[:, t]`` is the carry after time t.
        """
        carry = self.initial(len(x)) if carry is None else carry
        return self._run(x, is_first, carry, generator)

    def step(self, x: Tensor, is_first: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """Compute deter (N, width) and the next carry from one input (N, width).

        The carry is (N, layers, 2, P), ``is_first`` (N,) bool.
        """
        return self._run(x, is_first, carry, None)

    def _run(
        self, x: Tensor, is_first: Tensor, carry: Tensor, generator: Generator | None
    ) -> tuple[Tensor, Tensor]:
        carry = forget(carry, is_first if is_first.ndim == 1 else is_first[:, 0])
        keep, states = 1.0 - is_first.float(), []
        for i, layer in enumerate(self.layers):
            x, state = layer(x, keep, carry[:, i], generator)
            states.append(state)
        return x, torch.stack(states, -3)


def recurrence_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """The step sizes, eigenvalues and input matrices in ``module``.

    They are trained without weight decay and often at a rate of their own.
    """
    for part in module.modules():
        if isinstance(part, Diagonal):
            yield from (part.log_step.weight, part.log_decay, part.frequency, part.drive.weight)
