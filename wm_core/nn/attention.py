"""Causal self-attention over a sliding window, with several kinds of positions.

The age of a key counts backwards: the query's own key has age 0, and ``window`` ages are visible.
Parameters per age are stored **oldest first** (slot = window - 1 - age), in the order of a full
cache, so that one step needs no gather and every parameter has its own name in the exported graph.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from wm_core.nn import joined
from wm_core.nn.blocks import Filled, Linear

Positions = Literal["none", "sinusoid", "age", "shaw", "xl"]
KeysValues = tuple[Tensor, Tensor]  #: (B, heads, S, head) each


class View(NamedTuple):
    """Says which keys each query may attend to; the same for all layers.

    Attributes:
        allowed: (B, 1, T, S) bool, whether query t attends to key s.
        slot: (T, S) int64 slot of key s for query t, clamped into the window; None where T is 1
            and the keys are a whole window, so that slots and keys are in the same order.
    """

    allowed: Tensor
    slot: Tensor | None


def rates(width: int) -> Tensor:
    """Compute angular frequencies (width / 2,) in rad per step, from 1 to nearly 1 / 10000."""
    if width % 2:
        raise ValueError(f"expected an even width for sinusoidal positions, got {width}")
    return torch.exp(torch.arange(width // 2) * (-2.0 * math.log(10000.0) / width))


def sinusoids(position: Tensor, frequencies: Tensor) -> Tensor:
    """Compute sines, then cosines (..., 2 R), of positions (...) at frequencies (R,).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    Deviates: sines and cosines form two halves instead of alternating.
    """
    phase = position.unsqueeze(-1) * frequencies
    return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class Scores(nn.Module):
    """Scores keys by scaled dot products, without positions of its own.

    Args:
        divisor: the products are divided by its root; the size of a head by default.
    """

    def __init__(self, divisor: int | None = None) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        """Compute logits (B, heads, T, S) from queries (B, heads, T, d) and keys."""
        return query @ keys.transpose(-1, -2) * self._scale(query)

    def _scale(self, query: Tensor) -> float:
        """Factor on the products of queries (B, heads, T, d)."""
        return float((self.divisor or query.shape[-1]) ** -0.5)

    def read(self, weights: Tensor, values: Tensor, slot: Tensor | None) -> Tensor:
        """Sum values (B, heads, S, d) by their weights to (B, heads, T, d)."""
        return weights @ values


class AgeScores(Scores):
    """Scores keys by dot products plus a learned bias for each head and age."""

    def __init__(self, heads: int, window: int, divisor: int | None = None) -> None:
        super().__init__(divisor)
        self.bias = nn.Parameter(torch.zeros(heads, 1, window))

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        bias = self.bias if slot is None else self.bias[:, 0, slot]
        return super().forward(query, keys, slot) + bias


class ShawScores(Scores):
    """Adds vectors of relative positions to keys and values, shared by all heads.

    Source: Shaw et al. 2018, arXiv:1803.02155, equations 3 and 4.
    Deviates: the window bounds the distances, so they are not clipped.
    """

    def __init__(self, head: int, window: int, divisor: int | None = None) -> None:
        super().__init__(divisor)
        self.key = Filled((head, window), fan_in=head)
        self.value = Filled((window, head), fan_in=head)

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        by_slot = query @ self.key.weight
        scale = self._scale(query)
        return super().forward(query, keys, slot) + _to_keys(by_slot, slot) * scale

    def read(self, weights: Tensor, values: Tensor, slot: Tensor | None) -> Tensor:
        if slot is None:
            return weights @ values + weights @ self.value.weight
        # (T, B, heads, S) against (T, 1, S, d): one small matrix per query
        positions = weights.permute(2, 0, 1, 3) @ self.value.weight[slot].unsqueeze(1)
        return weights @ values + positions.permute(1, 2, 0, 3)


class XLScores(Scores):
    """Scores keys by content and by relative position, each with a learned bias of the query.

    Source: Dai et al. 2019 (Transformer-XL), arXiv:1901.02860, section 3.3:
    (q + u) k + (q + v) W R.  u and v are drawn as in TWM (code), by Glorot's uniform law.
    Deviates: each layer has its own u and v; memory is cached as keys and values.
    """

    def __init__(
        self, heads: int, head: int, width: int, window: int, divisor: int | None = None
    ) -> None:
        super().__init__(divisor)
        self.u = nn.Parameter(torch.zeros(heads, 1, head))
        self.v = nn.Parameter(torch.zeros(heads, 1, head))
        self.place = Filled((heads, head, width), fan_in=width)
        ages = torch.arange(window - 1, -1, -1, dtype=torch.float32)
        self.encoding: Tensor
        table = sinusoids(ages, rates(width)).T.contiguous()
        self.register_buffer("encoding", table, persistent=False)

    def fill(self, generator: Generator) -> None:
        """Draw u and v, as ``initialize`` asks."""
        bound = math.sqrt(6.0 / (self.u.shape[0] + self.u.shape[2]))
        for bias in (self.u, self.v):
            nn.init.uniform_(bias, -bound, bound, generator=generator)

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        position_query = query + self.v
        if query.shape[0] * query.shape[2] < self.encoding.shape[1]:  # the cheaper order
            by_slot = position_query @ self.place.weight @ self.encoding
        else:
            by_slot = position_query @ (self.place.weight @ self.encoding)
        content = super().forward(query + self.u, keys, slot)
        return content + _to_keys(by_slot, slot) * self._scale(query)


def _to_keys(by_slot: Tensor, slot: Tensor | None) -> Tensor:
    """Pick each key's entry (B, heads, T, S) from ``by_slot`` (B, heads, T, window)."""
    if slot is None:
        return by_slot
    return by_slot.gather(-1, slot.expand(*by_slot.shape[:2], *slot.shape))


def make_scores(
    positions: Positions,
    *,
    heads: int,
    head: int,
    width: int,
    window: int,
    divisor: int | None = None,
) -> Scores:
    """Make the scores for a kind of ``positions``; ``divisor`` as in ``Scores``."""
    if positions == "age":
        return AgeScores(heads, window, divisor)
    if positions == "shaw":
        return ShawScores(head, window, divisor)
    if positions == "xl":
        return XLScores(heads, head, width, window, divisor)
    if positions in ("none", "sinusoid"):
        return Scores(divisor)
    raise ValueError(f"positions: expected none, sinusoid, age, shaw or xl, got {positions!r}")


def drop(x: Tensor, rate: float, generator: Generator | None) -> Tensor:
    """Apply dropout of ``rate`` to ``x`` (...); without a generator return ``x``."""
    if generator is None or rate == 0.0:
        return x
    return x * joined.kept(x, 1.0 - rate, generator) / (1.0 - rate)


class Attention(nn.Module):
    """Attends with several heads; past keys and values are passed in and returned.

    Args:
        width: of input and output.
        heads: how many; their sizes need not add up to ``width``.
        head: size of each.
        scores: computes the logits of keys.
        scale: factor on the initial output weights.
        dropout: share of attention weights to drop where a generator is given.
    """

    def __init__(
        self, width: int, heads: int, head: int, scores: Scores, *, scale: float, dropout: float
    ) -> None:
        super().__init__()
        self.heads, self.head, self.dropout = heads, head, dropout
        self.inner = Linear(width, 3 * heads * head, bias=False)
        self.outer = Linear(heads * head, width, scale=scale)
        self.scores = scores

    def forward(
        self, x: Tensor, past: KeysValues | None, view: View, generator: Generator | None
    ) -> tuple[Tensor, KeysValues]:
        """Attend from T new tokens to the past and to themselves.

        Args:
            x: (B * T, width) new tokens; as rows they export as one matrix product.
            past: keys and values (B, heads, P, head) before them; None for none.
            view: what they may attend to, with S = P + T.
            generator: draws the dropout; None applies none.

        Returns:
            (B * T, width), and keys and values (B, heads, P + T, head).
        """
        B, T = view.allowed.shape[0], view.allowed.shape[2]
        parts = self.inner(x).reshape(B, T, 3, self.heads, self.head).permute(2, 0, 3, 1, 4)
        query, keys, values = parts.unbind(0)
        if past is not None:
            keys, values = torch.cat([past[0], keys], 2), torch.cat([past[1], values], 2)
        logits = self.scores(query, keys, view.slot).float()
        logits = logits.masked_fill(~view.allowed, -torch.inf)
        weights = drop(torch.softmax(logits, -1).to(values.dtype), self.dropout, generator)
        read = self.scores.read(weights, values, view.slot)
        return self.outer(read.transpose(1, 2).reshape(B * T, -1)), (keys, values)
