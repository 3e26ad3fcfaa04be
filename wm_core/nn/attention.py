"""Causal self-attention over a sliding window, with the ways of telling it where a key lies.

Ages are counted backwards: a key of age 0 is the query's own, and ``window`` ages are visible.
Everything learned per age is stored **oldest first** (slot = window - 1 - age), which is the order
of a full cache: one step then needs no gather, and every parameter enters the exported graph under
its own name.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wm_core.nn.blocks import Filled, Linear

Positions = Literal["none", "sinusoid", "age", "shaw", "xl"]


class View(NamedTuple):
    """What each query may see; the same for all layers.

    Attributes:
        allowed: (B, 1, T, S) bool, whether query t sees key s.
        slot: (T, S) int64 slot of key s for query t, clamped into the window; None where T is 1
            and the keys are a whole window, so that slots and keys are in the same order.
    """

    allowed: Tensor
    slot: Tensor | None


def rates(width: int) -> Tensor:
    """(width / 2,) angular frequencies in rad per step, from 1 down to nearly 1 / 10000."""
    if width % 2:
        raise ValueError(f"sinusoidal positions want an even width, got {width}")
    return torch.exp(torch.arange(width // 2) * (-2.0 * math.log(10000.0) / width))


def sinusoids(position: Tensor, frequencies: Tensor) -> Tensor:
    """(..., 2 R) sines, then cosines, of positions (...) in steps at frequencies (R,).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    Deviates: sines and cosines lie in two halves instead of taking turns.
    """
    phase = position.unsqueeze(-1) * frequencies
    return torch.cat([torch.sin(phase), torch.cos(phase)], -1)


class Scores(nn.Module):
    """Scaled dot products; positions are left to the input, or to nobody."""

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        """(B, heads, T, S) logits of queries (B, heads, T, d) and keys (B, heads, S, d)."""
        return query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5

    def read(self, weights: Tensor, values: Tensor, slot: Tensor | None) -> Tensor:
        """(B, heads, T, d) weighted sum of values (B, heads, S, d)."""
        return weights @ values


class AgeScores(Scores):
    """Dot products plus a learned bias for each head and age."""

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(heads, 1, window))

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        bias = self.bias if slot is None else self.bias[:, 0, slot]
        return super().forward(query, keys, slot) + bias


class ShawScores(Scores):
    """Relative positions as vectors that are added to keys and to values, shared by all heads.

    Source: Shaw et al. 2018, arXiv:1803.02155, equations 3 and 4.
    Deviates: distances are bounded by the window, so there is nothing to clip.
    """

    def __init__(self, head: int, window: int) -> None:
        super().__init__()
        self.key = Table((head, window), fan_in=head)
        self.value = Table((window, head), fan_in=head)

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        by_slot = query @ self.key.weight
        scale = query.shape[-1] ** -0.5
        return super().forward(query, keys, slot) + _to_keys(by_slot, slot) * scale

    def read(self, weights: Tensor, values: Tensor, slot: Tensor | None) -> Tensor:
        if slot is None:
            return weights @ values + weights @ self.value.weight
        # (T, B, heads, S) against (T, 1, S, d): one small matrix per query
        positions = weights.permute(2, 0, 1, 3) @ self.value.weight[slot].unsqueeze(1)
        return weights @ values + positions.permute(1, 2, 0, 3)


class XLScores(Scores):
    """Relative positions as mapped sinusoids, with one learned query for keys and one for places.

    Source: Dai et al. 2019 (Transformer-XL), arXiv:1901.02860, section 3.3:
    (q + u) k + (q + v) W R.
    Deviates: each layer has its own u and v; memory is cached as keys and values.
    """

    def __init__(self, heads: int, head: int, width: int, window: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.zeros(heads, 1, head))
        self.v = nn.Parameter(torch.zeros(heads, 1, head))
        self.place = Table((heads, head, width), fan_in=width)
        ages = torch.arange(window - 1, -1, -1, dtype=torch.float32)
        self.encoding: Tensor
        table = sinusoids(ages, rates(width)).T.contiguous()
        self.register_buffer("encoding", table, persistent=False)

    def forward(self, query: Tensor, keys: Tensor, slot: Tensor | None) -> Tensor:
        asking = query + self.v
        if query.shape[0] * query.shape[2] < self.encoding.shape[1]:  # the cheaper order
            by_slot = asking @ self.place.weight @ self.encoding
        else:
            by_slot = asking @ (self.place.weight @ self.encoding)
        content = super().forward(query + self.u, keys, slot)
        return content + _to_keys(by_slot, slot) * query.shape[-1] ** -0.5


class Table(Filled):
    """A learned array of any shape without bias, filled like the weight of a linear layer."""

    def __init__(self, shape: tuple[int, ...], *, fan_in: int) -> None:
        super().__init__(shape, fan_in=fan_in, bias=0, scale=1.0)


def _to_keys(by_slot: Tensor, slot: Tensor | None) -> Tensor:
    """(B, heads, T, S) what ``by_slot`` (B, heads, T, window) says of each key."""
    if slot is None:
        return by_slot
    return by_slot.gather(-1, slot.expand(*by_slot.shape[:2], *slot.shape))


def make_scores(positions: Positions, *, heads: int, head: int, width: int, window: int) -> Scores:
    """The scores that know ``positions``; for "none" and "sinusoid" those that know none."""
    if positions == "age":
        return AgeScores(heads, window)
    if positions == "shaw":
        return ShawScores(head, window)
    if positions == "xl":
        return XLScores(heads, head, width, window)
    if positions in ("none", "sinusoid"):
        return Scores()
    raise ValueError(f"positions: expected none, sinusoid, age, shaw or xl, got {positions!r}")


def drop(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """(...) ``x`` with a share ``rate`` of zeros and its mean kept; ``x`` without a generator."""
    if generator is None or rate == 0.0:
        return x
    return x * torch.empty_like(x).bernoulli_(1.0 - rate, generator=generator) / (1.0 - rate)


class Attention(nn.Module):
    """Attention of several heads whose keys and values are handed in and out.

    Args:
        width: of input and output.
        heads: how many; their sizes need not add up to ``width``.
        head: size of each.
        scores: how a query weighs a key.
        scale: of the initial output, as ``Linear`` has it.
        dropout: share of attention weights that are dropped where a generator is given.
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
        self,
        x: Tensor,
        past: tuple[Tensor, Tensor] | None,
        view: View,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend from T new tokens to the past and to themselves.

        Args:
            x: (B * T, width) new tokens; rows, because that is what exports as one product.
            past: keys and values (B, heads, P, head) before them; None for none.
            view: what they may see, with S = P + T.
            generator: decides the dropout; None drops nothing.

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
