"""One operation observes a whole sequence with DreamerV3's RSSM; its gradient is written by hand.

It computes what ``RSSM.observe`` computes step by step, in half of the operations, and leaves
nothing for autograd to record: the gradient goes back through the steps with the state's part
alone, and each weight's gradient is one product over all steps in place of a sum over them.
Tests hold both forms together, forward and backward.

Letters: B batch, T time, D deter, G blocks, I = D / G, H hidden, Z = S K flat stoch, U units.
"""

from __future__ import annotations

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
    blocks_of,
    draw,
    gate_order,
)

_softmax_backward = torch.ops.aten._softmax_backward_data


class Sequence(NamedTuple):
    """What is observed, and how: nothing of it is trained."""

    noise: Tensor  #: (T, B, S, K) race weights of the draws
    is_first: Tensor  #: (T, B) bool
    unimix: float  #: share of uniform in the posterior, above 0
    dtype: torch.dtype | None  #: type of the products; None: float32


class _Step(NamedTuple):
    """What the gradient needs of one step."""

    cell: CellStep
    sample: Tensor  #: (B, Z) stoch that it began with
    hidden: Normed  #: (B, U)
    softmax: Tensor  #: (B, S, K) before the share of uniform


class _Observe(torch.autograd.Function):
    """``forward`` takes the settings, then every tensor that has a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        sequence: Sequence,
        deter: Tensor,
        stoch: Tensor,
        prepared: Tensor,
        embedded: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        w, products = CellWeights(*weights), Products(sequence.dtype)
        with torch.autocast(deter.device.type, enabled=False):
            steps, probs, samples, deters = _run(
                sequence, products, deter, stoch, prepared, embedded, w
            )
        ctx.sequence, ctx.steps = sequence, steps
        ctx.save_for_backward(probs, deters, *weights)
        return (
            deters.transpose(0, 1).contiguous(),
            samples.transpose(0, 1).contiguous(),
            probs.log().transpose(0, 1).contiguous(),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        probs, deters, *weights = ctx.saved_tensors
        # ``steps`` stays for another pass backward, as autograd's own would with retain_graph
        w, products, steps = CellWeights(*weights), Products(ctx.sequence.dtype), ctx.steps
        g_deter, g_stoch, g_params = (g.transpose(0, 1).contiguous() for g in gradients)
        g_probs = g_params / probs + g_stoch
        back = _Backward(ctx.sequence, products, w)
        for t in reversed(range(len(steps))):
            back.step(t, steps[t], g_deter[t], g_probs[t])
        return (None, back.deter, back.stoch, *back.inputs(), *back.weights(steps, deters))


def _run(
    sequence: Sequence,
    products: Products,
    deter: Tensor,
    stoch: Tensor,
    prepared: Tensor,
    embedded: Tensor,
    w: CellWeights,
) -> tuple[list[_Step], Tensor, Tensor, Tensor]:
    """Go through the steps; see ``_Observe`` for the arguments.

    Returns:
        What each step leaves for the gradient, probabilities (T, B, S, K), samples (T, B, S, K)
        and deter (T, B, D).
    """
    cell, T = Cell(w, sequence.dtype), len(sequence.is_first)
    post_deter, out = products.cast(w.post_deter).T, products.cast(w.out).T
    prepared, embedded = cell.prepare(prepared.transpose(0, 1)), embedded.transpose(0, 1)
    starts, deters = sequence.is_first.any(1).tolist(), deter.new_empty(T, *deter.shape)
    steps, probs, samples = [], [], []
    for t in range(T):
        if starts[t]:
            first = sequence.is_first[t].unsqueeze(1)
            deter, stoch = deter.masked_fill(first, 0.0), stoch.masked_fill(first, 0.0)
        advanced = cell.advance(deter, stoch, prepared[t], deters[t])
        hidden = Normed.of(products.add(embedded[t], deters[t], post_deter), w.post_norm)
        logits = products.add(w.out_bias, hidden.value, out)
        softmax, mixed, sample = draw(logits, sequence.noise[t], sequence.unimix)
        steps.append(_Step(advanced, stoch, hidden, softmax))
        probs.append(mixed)
        samples.append(sample)
        deter, stoch = deters[t], sample.flatten(1)
    return steps, torch.stack(probs), torch.stack(samples), deters


class _Backward:
    """Goes back through the steps; ``deter`` and ``stoch`` are the gradients of their start."""

    def __init__(self, sequence: Sequence, products: Products, w: CellWeights) -> None:
        self._sequence, self._products, self._w = sequence, products, w
        self._starts = sequence.is_first.any(1).tolist()
        _, B, S, K = sequence.noise.shape
        self.deter, self.stoch = w.out.new_zeros(B, w.share.shape[0]), w.out.new_zeros(B, S * K)
        self._cell, cast = CellBackward(w, sequence.dtype), products.cast
        self._post_deter, self._out = cast(w.post_deter), cast(w.out * (1.0 - sequence.unimix))
        self._rows: list[tuple[Tensor, ...]] = []  # gradients of each step, the last one first

    def step(self, t: int, step: _Step, g_deter: Tensor, g_probs: Tensor) -> None:
        """Go back through step ``t``, whose results have gradients (B, D) and (B, S, K)."""
        products = self._products
        g_probs = g_probs + self.stoch.view_as(g_probs)
        g_logits = _softmax_backward(g_probs, step.softmax, -1, torch.float32).flatten(1)
        g_hidden = products.of(g_logits, self._out)
        g_post, post_along = step.hidden.backward(g_hidden, self._w.post_norm)
        g_deter = products.add(g_deter + self.deter, g_post, self._post_deter)
        g_shared, g_before, g_gates, gru_along = self._cell.shared(step.cell, g_deter)
        self.deter, self.stoch, g_in, in_along = self._cell.state(step.cell, g_shared, g_before)
        if self._starts[t]:
            first = self._sequence.is_first[t].unsqueeze(1)
            self.deter, self.stoch = (g.masked_fill(first, 0.0) for g in (self.deter, self.stoch))
        self._rows.append(
            (g_logits, g_post, post_along, g_gates, g_shared, gru_along, g_in, in_along)
        )

    def inputs(self) -> tuple[Tensor, Tensor]:
        """(B, T, D) gradient of what was prepared, and (B, T, U) of what was embedded."""
        rows = self._rows[::-1]
        return torch.stack([r[4] for r in rows], 1), torch.stack([r[1] for r in rows], 1)

    def weights(self, steps: list[_Step], deters: Tensor) -> CellWeights:
        """The gradient of each weight."""
        products, blocks = self._products, len(self._w.inner)

        def rows(index: int) -> Tensor:
            """(T B, ...) gradients of all steps."""
            return torch.cat([row[index] for row in reversed(self._rows)])

        def outer(gradient: Tensor, x: Tensor) -> Tensor:
            """(O, I) or (G, O, I) gradient of a weight, from (..., T B, O) and (..., T B, I)."""
            return products.of(gradient.mT, products.cast(x))

        g_logits, g_post, g_shared, g_in = rows(0), rows(1), rows(4), rows(6)
        g_logits = g_logits * (1.0 - self._sequence.unimix)
        # (G, T B, 3 I)
        g_gates = torch.cat([row[3] for row in reversed(self._rows)], 1)
        before = torch.cat([step.cell.before for step in steps])
        gru = torch.cat([step.cell.gru.value for step in steps])
        norms, g_gates_bias = rows(7).sum(0), g_gates.sum(1).flatten()
        g_gates_weight = outer(blocks_of(gru, blocks), g_gates)
        return CellWeights(
            deter_in=outer(g_in[:, 0], before),
            deter_bias=g_in[:, 0].sum(0),
            deter_norm=norms[0],
            stoch_in=outer(g_in[:, 1], torch.cat([step.sample for step in steps])),
            stoch_bias=g_in[:, 1].sum(0),
            stoch_norm=norms[1],
            share=outer(
                g_shared, torch.cat([step.cell.latent.value.flatten(1) for step in steps])
            ),
            inner=outer(blocks_of(before, blocks), blocks_of(g_shared, blocks)),
            inner_bias=g_shared.sum(0),
            gru_norm=rows(5).sum(0),
            gates=gate_order(g_gates_weight, 1),
            gates_bias=gate_order(g_gates_bias, blocks),
            post_deter=outer(g_post, deters.flatten(0, 1)),
            post_norm=rows(2).sum(0),
            out=outer(g_logits, torch.cat([step.hidden.value for step in steps])),
            out_bias=g_logits.sum(0),
        )


def observe_fused(
    sequence: Sequence,
    deter: Tensor,
    stoch: Tensor,
    prepared: Tensor,
    embedded: Tensor,
    weights: CellWeights,
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T, D) deter, (B, T, S, K) samples and log-probabilities of the posteriors.

    Args:
        sequence: T steps.
        deter: (B, D) before the first step.
        stoch: (B, Z) before the first step.
        prepared: (B, T, D) what the actions add to the GRU's input.
        embedded: (B, T, U) what the observations add to the posterior's hidden layer.
        weights: of the cell.
    """
    observe: Any = _Observe.apply
    return observe(sequence, deter, stoch, prepared, embedded, *weights)
