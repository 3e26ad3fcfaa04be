"""Dreams that are rolled out without a graph, and whose gradient is written by hand.

What an actor reads of a dream has no gradient, so a reward reaches an action through the states
alone: backwards through the recurrence and the prior, with weights that are not trained by it.
That is a third of the operations that autograd would record and go back through.  Tests hold both
forms together.

Letters: N rows, D deter, S groups, K classes, Z = S K, U units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wm_core.world.fused_cell import (
    Cell,
    CellBackward,
    CellStep,
    CellWeights,
    Normed,
    Products,
    draw,
)
from wm_core.world.latent import Latent

_softmax_backward = torch.ops.aten._softmax_backward_data


class PriorLayer(NamedTuple):
    """A linear layer with an RMSNorm behind it."""

    weight: Tensor  #: (U, D), or (U, U)
    bias: Tensor  #: (U,)
    norm: Tensor  #: (U,)


class PriorWeights(NamedTuple):
    """The weights of a prior, in its layers' shapes."""

    layers: tuple[PriorLayer, ...]  #: at least one
    out: Tensor  #: (Z, U)
    out_bias: Tensor  #: (Z,)


class _Step(NamedTuple):
    """What the gradient needs of one step."""

    cell: CellStep
    hidden: list[Normed]  #: (N, U) of each layer of the prior
    softmax: Tensor  #: (N, S, K) before the share of uniform


class FusedDream:
    """Imagines a step at a time without a graph, and afterwards gives the states a gradient.

    Args:
        prepare: maps actions (..., A) to (..., D), what they add to the GRU's input.
        weights: of the recurrence.
        prior: its weights.
        noise: (T_imag, N, S, K) race weights of the draws.
        unimix: share of uniform in the prior, above 0.
        dtype: type of the products; None: float32.
    """

    def __init__(
        self,
        prepare: Callable[[Tensor], Tensor],
        weights: CellWeights,
        prior: PriorWeights,
        noise: Tensor,
        unimix: float,
        dtype: torch.dtype | None,
    ) -> None:
        self._prepare, self._weights, self._prior = prepare, weights, prior
        self._noise, self._unimix, self._products = noise, unimix, Products(dtype)
        self._cell, cast = Cell(weights, dtype), self._products.cast
        self._maps = [cast(layer.weight).T for layer in prior.layers]
        self._out = cast(prior.out).T
        self._steps: list[_Step] = []

    @torch.no_grad()
    def step(self, t: int, latent: Latent, action: Tensor) -> Latent:
        """(N,) state after step ``t``, from ``latent`` (N,) by ``action`` (N, A)."""
        deter, add = torch.empty_like(latent.deter), self._products.add
        prepared = self._cell.prepare(self._prepare(action))
        cell = self._cell.advance(latent.deter, latent.flat_stoch, prepared, deter)
        x, hidden = deter, []
        for layer, mapped in zip(self._prior.layers, self._maps, strict=True):
            hidden.append(Normed.of(add(layer.bias, x, mapped), layer.norm))
            x = hidden[-1].value
        logits = add(self._prior.out_bias, x, self._out)
        softmax, _, sample = draw(logits, self._noise[t], self._unimix)
        self._steps.append(_Step(cell, hidden, softmax))
        return Latent(deter, sample)

    def differentiable(self, states: Latent, action: Tensor) -> Latent:
        """(N, T_imag + 1) ``states`` with gradients to ``action`` (N, T_imag, A).

        Args:
            states: (N, T_imag + 1) the start, and what ``step`` gave.
            action: (N, T_imag, A) by which it was given.
        """
        dreamt: Any = _Dreamt.apply
        return Latent(*dreamt(self, states.deter, states.stoch, self._prepare(action)))

    def backward(self, g_deter: Tensor, g_stoch: Tensor) -> Tensor:
        """(N, T_imag, D) gradient of what was prepared, from that of the states.

        Args:
            g_deter: (N, T_imag + 1, D).
            g_stoch: (N, T_imag + 1, S, K).
        """
        products, prior = self._products, self._prior
        cell = CellBackward(self._weights, products.dtype)
        maps = [products.cast(layer.weight) for layer in prior.layers]
        out = products.cast(prior.out * (1.0 - self._unimix))
        deter, stoch, found = g_deter[:, -1], g_stoch[:, -1], list[Tensor]()
        for t in reversed(range(len(self._steps))):
            step = self._steps[t]
            g = _softmax_backward(stoch, step.softmax, -1, torch.float32).flatten(1)
            for at in reversed(range(len(maps))):
                g = products.of(g, out if at + 1 == len(maps) else maps[at + 1])
                g, _ = step.hidden[at].backward(g, prior.layers[at].norm)
            deter = products.add(deter, g, maps[0])
            shared, before, _, _ = cell.shared(step.cell, deter)
            found.append(shared)
            if t:  # the start has no gradient
                deter, flat, _, _ = cell.state(step.cell, shared, before)
                deter, stoch = deter + g_deter[:, t], flat.view_as(stoch) + g_stoch[:, t]
        return torch.stack(found[::-1], 1)


class _Dreamt(torch.autograd.Function):
    """Gives states that are known already the gradient of a ``FusedDream``."""

    @staticmethod
    def forward(
        ctx: Any, dream: FusedDream, deter: Tensor, stoch: Tensor, prepared: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.dream = dream
        return deter.detach(), stoch.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None, Tensor]:
        return None, None, None, ctx.dream.backward(*gradients)
