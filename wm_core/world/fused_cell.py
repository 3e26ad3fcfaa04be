"""One step of DreamerV3's recurrence in few operations, and its gradient written by hand.

``observe_fused`` goes along data with it, ``imagine_fused`` through dreams, forward and backward.

Letters: N rows, D deter, G blocks, I = D / G, H hidden, Z = S K flat stoch, U units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from wm_core.nn.blocks import unit_rms

_silu_backward = torch.ops.aten.silu_backward


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


class Products(NamedTuple):
    """Matrix products in the sequence's type, with sums and results in float32."""

    dtype: torch.dtype | None

    def cast(self, x: Tensor) -> Tensor:
        """(...) ``x`` (...) in the type of the products."""
        return x if self.dtype is None else x.to(self.dtype)

    def add(self, total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """(N, O) or (G, N, O) ``total`` plus ``x`` times ``weight``, which is cast already."""
        if self.dtype is not None:
            return total + (x.to(self.dtype) @ weight).float()
        return torch.addmm(total, x, weight) if x.ndim == 2 else torch.baddbmm(total, x, weight)

    def of(self, x: Tensor, weight: Tensor) -> Tensor:
        """(N, O) or (G, N, O) ``x`` times ``weight``, which is cast already."""
        return (self.cast(x) @ weight).float()


def blocks_of(x: Tensor, count: int) -> Tensor:
    """(G, N, I) view of the blocks of ``x`` (N, D)."""
    return x.view(len(x), count, -1).transpose(0, 1)


def joined_blocks(x: Tensor) -> Tensor:
    """(N, D) of blocks (G, N, I)."""
    return x.transpose(0, 1).reshape(x.shape[1], -1)


def gate_order(x: Tensor, blocks: int) -> Tensor:
    """(...) gates ``x`` (...), of each block the last two of three exchanged; its own inverse."""
    parts = x.unflatten(-1, (blocks, 3, -1))
    return parts[..., [0, 2, 1], :].flatten(-3)


class CellStep(NamedTuple):
    """What the gradient needs of one step of the recurrence."""

    before: Tensor  #: (N, D) deter that it began with
    latent: Normed  #: (N, 2, H)
    gru: Normed  #: (N, D)
    opened: Tensor  #: (G, N, 2 I) reset and update after their sigmoid
    raw: Tensor  #: (G, N, I) candidate before reset and tangent
    candidate: Tensor  #: (G, N, I)


class Cell:
    """One step of the recurrence, without gradient; its weights are laid out once.

    Args:
        weights: of the layers.
        dtype: type of the products; None: float32.
    """

    def __init__(self, weights: CellWeights, dtype: torch.dtype | None) -> None:
        w, self._products = weights, Products(dtype)
        cast, self._blocks = self._products.cast, len(w.inner)
        size = w.inner.shape[1]
        self._deter_in, self._stoch_in, self._share = (
            cast(x).T for x in (w.deter_in, w.stoch_in, w.share)
        )
        self._deter_bias, self._stoch_bias, self._gru_norm = w.deter_bias, w.stoch_bias, w.gru_norm
        self._inner, self._gates = cast(w.inner), cast(gate_order(w.gates, 1))
        self._norms = torch.stack([w.deter_norm, w.stoch_norm])
        self._gates_bias = gate_order(w.gates_bias, self._blocks).view(self._blocks, 1, -1)
        self._gates_bias[..., size : 2 * size] -= 1.0  # of the update
        self._inner_bias = w.inner_bias

    def prepare(self, prepared: Tensor) -> Tensor:
        """(..., D) what ``advance`` takes, from what the actions add to the GRU's input."""
        return prepared + self._inner_bias

    def advance(self, deter: Tensor, stoch: Tensor, prepared: Tensor, out: Tensor) -> CellStep:
        """Write the next deter to ``out`` (B, D); returns what its gradient needs.

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
        mapped = products.add(blocks_of(shared, blocks), blocks_of(deter, blocks), self._inner)
        gru = Normed.of(joined_blocks(mapped), self._gru_norm)
        gate = products.add(self._gates_bias, blocks_of(gru.value, blocks), self._gates)
        size = gate.shape[-1] // 3
        opened, raw = torch.sigmoid(gate[..., : 2 * size]), gate[..., 2 * size :]
        reset, update = opened.split(size, -1)
        candidate = torch.tanh(reset * raw)
        torch.lerp(blocks_of(deter, blocks), candidate, update, out=blocks_of(out, blocks))
        return CellStep(deter, latent, gru, opened, raw, candidate)


class CellBackward:
    """Goes back through steps of the recurrence.

    Args:
        weights: of the layers.
        dtype: type of the products; None: float32.
    """

    def __init__(self, weights: CellWeights, dtype: torch.dtype | None) -> None:
        w, self._products = weights, Products(dtype)
        cast, self._gru_norm = self._products.cast, w.gru_norm
        self._deter_in, self._stoch_in, self._share = map(cast, (w.deter_in, w.stoch_in, w.share))
        self._inner = cast(w.inner).transpose(1, 2)
        self._gates = cast(gate_order(w.gates, 1)).transpose(1, 2)
        self._norms = torch.stack([w.deter_norm, w.stoch_norm])

    def shared(self, step: CellStep, g_deter: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Go back from the next deter to what the GRU read.

        Args:
            step: that is gone back through.
            g_deter: (N, D) gradient of the next deter.

        Returns:
            Gradients of the shared input (N, D), which is that of what was prepared too, of the
            deter before by way of the gates (G, N, I), of the gates (G, N, 3 I), and what that of
            the norm is a sum of, (N, D).
        """
        g_gates, g_before = _gated(step, blocks_of(g_deter, len(self._inner)))
        g_gru = joined_blocks(self._products.of(g_gates, self._gates))
        g_shared, along = step.gru.backward(g_gru, self._gru_norm)
        return g_shared, g_before, g_gates, along

    def state(
        self, step: CellStep, g_shared: Tensor, g_before: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Go back from the shared input to the state before.

        Args:
            step: that is gone back through.
            g_shared: (N, D) gradient of the shared input.
            g_before: (G, N, I) gradient of the deter before by way of the gates.

        Returns:
            Gradients of the deter before (N, D), of the stoch before (N, Z), of both inputs
            before their norms (N, 2, H), and what those of the norms are sums of, (N, 2, H).
        """
        products, blocks = self._products, len(self._inner)
        before = joined_blocks(products.add(g_before, blocks_of(g_shared, blocks), self._inner))
        g_latent = products.of(g_shared, self._share).view_as(step.latent.value)
        g_in, along = step.latent.backward(g_latent, self._norms)
        deter = products.add(before, g_in[:, 0], self._deter_in)
        return deter, products.of(g_in[:, 1], self._stoch_in), g_in, along


def _gated(step: CellStep, g: Tensor) -> tuple[Tensor, Tensor]:
    """(G, N, 3 I) gradient of reset, update and candidate; (G, N, I) of deter before them."""
    size = step.raw.shape[-1]
    reset, update = step.opened.split(size, -1)
    result = step.opened.new_empty(*step.raw.shape[:2], 3 * size)
    opened = result[..., : 2 * size]
    before = blocks_of(step.before, len(g))
    torch.mul(g, step.candidate - before, out=result[..., size : 2 * size])
    g_candidate = g * update
    g_raw = torch.ops.aten.tanh_backward(g_candidate, step.candidate)
    torch.mul(g_raw, step.raw, out=result[..., :size])
    torch.mul(g_raw, reset, out=result[..., 2 * size :])
    torch.ops.aten.sigmoid_backward.grad_input(opened, step.opened, grad_input=opened)
    return result, g - g_candidate


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
