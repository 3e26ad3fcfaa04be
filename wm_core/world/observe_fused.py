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

from wm_core.nn.blocks import unit_rms

_silu_backward = torch.ops.aten.silu_backward
_softmax_backward = torch.ops.aten._softmax_backward_data


class CellWeights(NamedTuple):
    """The weights of a block-diagonal recurrence and its posterior, in their layers' shapes."""

    deter_in: Tensor  #: (H, D)
    deter_bias: Tensor  #: (H,)
    deter_norm: Tensor  #: (H,)
    stoch_in: Tensor  #: (H, Z)
    stoch_bias: Tensor  #: (H,)
    stoch_norm: Tensor  #: (H,)
    share: Tensor  #: (D, 2 H)
    inner: Tensor  #: (G, I, I)
    inner_bias: Tensor  #: (D,)
    gru_norm: Tensor  #: (D,)
    gates: Tensor  #: (G, I, 3 I): reset, candidate, update
    gates_bias: Tensor  #: (3 D,)
    post_deter: Tensor  #: (U, D)
    post_norm: Tensor  #: (U,)
    out: Tensor  #: (Z, U)
    out_bias: Tensor  #: (Z,)


class Sequence(NamedTuple):
    """What is observed, and how: nothing of it is trained."""

    noise: Tensor  #: (T, B, S, K) race weights of the draws
    is_first: Tensor  #: (T, B) bool
    unimix: float  #: share of uniform in the posterior, above 0
    dtype: torch.dtype | None  #: type of the products; None: float32


class _Step(NamedTuple):
    """What the gradient needs of one step."""

    before: Tensor  #: (B, D) deter that it began with
    sample: Tensor  #: (B, Z) stoch that it began with
    latent: Normed  #: (B, 2, H)
    gru: Normed  #: (B, D)
    opened: Tensor  #: (G, B, 2 I) reset and update after their sigmoid
    raw: Tensor  #: (G, B, I) candidate before reset and tangent
    candidate: Tensor  #: (G, B, I)
    hidden: Normed  #: (B, U)
    softmax: Tensor  #: (B, S, K) before the share of uniform


class Normed(NamedTuple):
    """An RMSNorm and SiLU of (..., C), with what their gradient needs."""

    value: Tensor  #: (..., C)
    unit: Tensor  #: (..., C) before the weight
    inverse: Tensor  #: (..., 1) of the root mean square
    scaled: Tensor  #: (..., C) before SiLU

    @classmethod
    def of(cls, x: Tensor, weight: Tensor) -> Normed:
        """SiLU of the RMSNorm of ``x`` (..., C) with ``weight`` (C,) or (..., C)."""
        unit, inverse = unit_rms(x)
        scaled = unit * weight
        return cls(torch.nn.functional.silu(scaled), unit, inverse, scaled)

    def backward(self, gradient: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) gradient of ``x``, and (..., C) what the weight's gradient is a sum of."""
        inner = _silu_backward(gradient, self.scaled)
        along = inner * self.unit
        slope = (along * weight).sum(-1, keepdim=True)
        x = torch.addcmul(inner * weight, self.unit, slope, value=-1.0 / self.unit.shape[-1])
        return x.mul_(self.inverse), along


class _Products(NamedTuple):
    """Matrix products in the sequence's type, with sums and results in float32."""

    dtype: torch.dtype | None

    def cast(self, x: Tensor) -> Tensor:
        return x if self.dtype is None else x.to(self.dtype)

    def add(self, total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """(N, O) or (G, N, O) ``total`` plus ``x`` times ``weight``, which is cast already."""
        if self.dtype is not None:
            return total + (x.to(self.dtype) @ weight).float()
        return torch.addmm(total, x, weight) if x.ndim == 2 else torch.baddbmm(total, x, weight)

    def of(self, x: Tensor, weight: Tensor) -> Tensor:
        """(N, O) or (G, N, O) ``x`` times ``weight``, which is cast already."""
        return (self.cast(x) @ weight).float()


def _blocks(x: Tensor, count: int) -> Tensor:
    """(G, N, I) view of the blocks of ``x`` (N, D)."""
    return x.view(len(x), count, -1).transpose(0, 1)


def _joined(x: Tensor) -> Tensor:
    """(N, D) of blocks (G, N, I)."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def _gate_order(x: Tensor, blocks: int) -> Tensor:
    """Gates (..., G 3 I) or (..., 3 I) with the last two of three exchanged; its own inverse."""
    parts = x.unflatten(-1, (blocks, 3, -1))
    return parts[..., [0, 2, 1], :].flatten(-3)


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
        w, products = CellWeights(*weights), _Products(sequence.dtype)
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
        w, products, steps = CellWeights(*weights), _Products(ctx.sequence.dtype), ctx.steps
        g_deter, g_stoch, g_params = (g.transpose(0, 1).contiguous() for g in gradients)
        g_probs = g_params / probs + g_stoch
        back = _Backward(ctx.sequence, products, w)
        for t in reversed(range(len(steps))):
            back.step(t, steps[t], g_deter[t], g_probs[t])
        return (None, back.deter, back.stoch, *back.inputs(), *back.weights(steps, deters))


class Cell:
    """One step of the recurrence, without gradient; its weights are laid out once.

    Args:
        weights: of the layers.
        dtype: type of the products; None: float32.
    """

    def __init__(self, weights: CellWeights, dtype: torch.dtype | None) -> None:
        w, self._products = weights, _Products(dtype)
        cast, self._blocks = self._products.cast, len(w.inner)
        size = w.inner.shape[1]
        self._deter_in, self._stoch_in, self._share = (
            cast(x).T for x in (w.deter_in, w.stoch_in, w.share)
        )
        self._deter_bias, self._stoch_bias, self._gru_norm = w.deter_bias, w.stoch_bias, w.gru_norm
        self._inner, self._gates = cast(w.inner), cast(_gate_order(w.gates, 1))
        self._norms = torch.stack([w.deter_norm, w.stoch_norm])
        self._gates_bias = _gate_order(w.gates_bias, self._blocks).view(self._blocks, 1, -1)
        self._gates_bias[..., size : 2 * size] -= 1.0  # of the update
        self._inner_bias = w.inner_bias

    def prepare(self, prepared: Tensor) -> Tensor:
        """(..., D) what ``advance`` takes, from what the actions add to the GRU's input."""
        return prepared + self._inner_bias

    def advance(
        self, deter: Tensor, stoch: Tensor, prepared: Tensor, out: Tensor
    ) -> tuple[Any, ...]:
        """Write the next deter to ``out`` (B, D); returns what its gradient needs, see ``_Step``.

        Args:
            deter: (B, D).
            stoch: (B, Z).
            prepared: (B, D) by ``prepare``.
            out: (B, D) that is written to.
        """
        products, blocks = self._products, self._blocks
        parts = [
            products.add(self._deter_bias, deter, self._deter_in),
            products.add(self._stoch_bias, stoch, self._stoch_in),
        ]
        latent = Normed.of(torch.stack(parts, 1), self._norms)
        shared = products.add(prepared, latent.value.flatten(1), self._share)
        mapped = products.add(_blocks(shared, blocks), _blocks(deter, blocks), self._inner)
        gru = Normed.of(_joined(mapped), self._gru_norm)
        gate = products.add(self._gates_bias, _blocks(gru.value, blocks), self._gates)
        size = gate.shape[-1] // 3
        opened, raw = torch.sigmoid(gate[..., : 2 * size]), gate[..., 2 * size :]
        reset, update = opened.split(size, -1)
        candidate = torch.tanh(reset * raw)
        torch.lerp(_blocks(deter, blocks), candidate, update, out=_blocks(out, blocks))
        return latent, gru, opened, raw, candidate


def draw(logits: Tensor, noise: Tensor, unimix: float) -> tuple[Tensor, Tensor, Tensor]:
    """Sample a categorical (B, S, K) without gradient, as ``Categorical`` does.

    Args:
        logits: (B, S K).
        noise: (B, S, K) race weights.
        unimix: share of uniform.

    Returns:
        Its softmax (B, S, K), that mixed with the uniform, and one-hot samples (B, S, K).
    """
    softmax = torch.softmax(logits.view_as(noise), -1)
    probs = torch.add(softmax.new_full((), unimix / noise.shape[-1]), softmax, alpha=1.0 - unimix)
    choice = torch.argmax(probs * noise, -1, keepdim=True)
    return softmax, probs, torch.zeros_like(probs).scatter_(-1, choice, 1.0)


def _run(
    sequence: Sequence,
    products: _Products,
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
        latent, gru, opened, raw, new = cell.advance(deter, stoch, prepared[t], deters[t])
        hidden = Normed.of(products.add(embedded[t], deters[t], post_deter), w.post_norm)
        logits = products.add(w.out_bias, hidden.value, out)
        softmax, mixed, sample = draw(logits, sequence.noise[t], sequence.unimix)
        steps.append(_Step(deter, stoch, latent, gru, opened, raw, new, hidden, softmax))
        probs.append(mixed)
        samples.append(sample)
        deter, stoch = deters[t], sample.flatten(1)
    return steps, torch.stack(probs), torch.stack(samples), deters


class _Backward:
    """Goes back through the steps; ``deter`` and ``stoch`` are the gradients of their start."""

    def __init__(self, sequence: Sequence, products: _Products, w: CellWeights) -> None:
        self._sequence, self._products, self._w = sequence, products, w
        self._starts = sequence.is_first.any(1).tolist()
        _, B, S, K = sequence.noise.shape
        self.deter, self.stoch = w.out.new_zeros(B, w.share.shape[0]), w.out.new_zeros(B, S * K)
        cast = products.cast
        self._deter_in, self._stoch_in, self._share = map(cast, (w.deter_in, w.stoch_in, w.share))
        self._post_deter, self._out = cast(w.post_deter), cast(w.out * (1.0 - sequence.unimix))
        self._inner = cast(w.inner).transpose(1, 2)
        self._gates = cast(_gate_order(w.gates, 1)).transpose(1, 2)
        self._norms = torch.stack([w.deter_norm, w.stoch_norm])
        self._rows: list[tuple[Tensor, ...]] = []  # gradients of each step, the last one first

    def step(self, t: int, step: _Step, g_deter: Tensor, g_probs: Tensor) -> None:
        """Go back through step ``t``, whose results have gradients (B, D) and (B, S, K)."""
        w, products, blocks = self._w, self._products, len(self._w.inner)
        g_probs = g_probs + self.stoch.view_as(g_probs)
        g_logits = _softmax_backward(g_probs, step.softmax, -1, torch.float32).flatten(1)
        g_hidden = products.of(g_logits, self._out)
        g_post, post_along = step.hidden.backward(g_hidden, w.post_norm)
        g_deter = products.add(g_deter + self.deter, g_post, self._post_deter)
        g_gates, g_before = self._gated(step, _blocks(g_deter, blocks))
        g_gru = _joined(products.of(g_gates, self._gates))
        g_shared, gru_along = step.gru.backward(g_gru, w.gru_norm)
        g_before = _joined(products.add(g_before, _blocks(g_shared, blocks), self._inner))
        g_latent = products.of(g_shared, self._share).view_as(step.latent.value)
        g_in, in_along = step.latent.backward(g_latent, self._norms)
        self.deter = products.add(g_before, g_in[:, 0], self._deter_in)
        self.stoch = products.of(g_in[:, 1], self._stoch_in)
        if self._starts[t]:
            first = self._sequence.is_first[t].unsqueeze(1)
            self.deter, self.stoch = (g.masked_fill(first, 0.0) for g in (self.deter, self.stoch))
        self._rows.append(
            (g_logits, g_post, post_along, g_gates, g_shared, gru_along, g_in, in_along)
        )

    def _gated(self, step: _Step, g: Tensor) -> tuple[Tensor, Tensor]:
        """(G, B, 3 I) gradient of reset, update and candidate; (G, B, I) of deter before them."""
        size = step.raw.shape[-1]
        reset, update = step.opened.split(size, -1)
        result = step.opened.new_empty(*step.raw.shape[:2], 3 * size)
        opened = result[..., : 2 * size]
        torch.mul(
            g, step.candidate - _blocks(step.before, len(g)), out=result[..., size : 2 * size]
        )
        g_candidate = g * update
        g_raw = torch.ops.aten.tanh_backward(g_candidate, step.candidate)
        torch.mul(g_raw, step.raw, out=result[..., :size])
        torch.mul(g_raw, reset, out=result[..., 2 * size :])
        torch.ops.aten.sigmoid_backward.grad_input(opened, step.opened, grad_input=opened)
        return result, g - g_candidate

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
        before = torch.cat([step.before for step in steps])
        gru = torch.cat([step.gru.value for step in steps])
        norms, g_gates_bias = rows(7).sum(0), g_gates.sum(1).flatten()
        g_gates_weight = outer(_blocks(gru, blocks), g_gates)
        return CellWeights(
            deter_in=outer(g_in[:, 0], before),
            deter_bias=g_in[:, 0].sum(0),
            deter_norm=norms[0],
            stoch_in=outer(g_in[:, 1], torch.cat([step.sample for step in steps])),
            stoch_bias=g_in[:, 1].sum(0),
            stoch_norm=norms[1],
            share=outer(g_shared, torch.cat([step.latent.value.flatten(1) for step in steps])),
            inner=outer(_blocks(before, blocks), _blocks(g_shared, blocks)),
            inner_bias=g_shared.sum(0),
            gru_norm=rows(5).sum(0),
            gates=_gate_order(g_gates_weight, 1),
            gates_bias=_gate_order(g_gates_bias, blocks),
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
