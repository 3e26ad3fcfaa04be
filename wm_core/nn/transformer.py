"""A causal transformer over a sliding window, for sequences and for single steps alike.

Acting and imagining pass a ``Cache`` from step to step.  It holds the last ``window`` keys and
values of each layer, oldest first, and shifts at each step, so that a slot's position is its age.
Tokens older than the window are forgotten, which equals full attention under a sliding-window mask
in every layer.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from wm_core.nn.attention import (
    Attention,
    KeysValues,
    Positions,
    View,
    drop,
    make_scores,
    rates,
    sinusoids,
)
from wm_core.nn.blocks import ACTIVATIONS, Activation, Linear

Order = Literal["pre", "post"]
Readout = Literal["last", "all"]
ScoreScale = Literal["head", "width"]  #: whose root divides the products of queries and keys


class Cache(NamedTuple):
    """State that one step passes to the next; zeros are an empty one.

    Attributes:
        keys: (N, layers, heads, L, head) of the last L = window tokens, oldest first.
        values: the same.
        valid: (N, L) 1.0 where a slot holds a token of the running episode, else 0.0.
        tokens: (N,) tokens of the running episode so far: the position of the next one.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor
    tokens: Tensor


class History(NamedTuple):
    """State after a pass over T tokens, from which the cache after any of them can be cut.

    Attributes:
        keys: (B, layers, heads, P + T, head), P tokens of the past (0 or window - 1) first.
        values: the same.
        allowed: (B, T, P + T) bool, which keys each token attended to.
        tokens: (B, T) tokens of the running episode, this one included.
        window: how many tokens a cache holds.
    """

    keys: Tensor
    values: Tensor
    allowed: Tensor
    tokens: Tensor
    window: int

    def last(self) -> Cache:
        """Cut the cache after the last token; its tensors begin with (B,)."""
        missing = self.window - self.keys.shape[3]
        keys, values, valid = self.keys, self.values, self.allowed[:, -1].float()
        if missing > 0:
            keys, values = F.pad(keys, (0, 0, missing, 0)), F.pad(values, (0, 0, missing, 0))
            valid = F.pad(valid, (missing, 0))
        elif missing < 0:
            keys, values = keys[..., -missing:, :], values[..., -missing:, :]
            valid = valid[:, -missing:]
        return Cache(keys, values, valid, self.tokens[:, -1])

    def at(self, times: Tensor) -> Cache:
        """Cut the caches after tokens ``times`` (M,) int64; they begin with (B * M,), b-major."""
        B, M, L = self.keys.shape[0], len(times), self.window
        missing = L - 1 - (self.keys.shape[3] - self.allowed.shape[1])
        index = (times.unsqueeze(1) + torch.arange(L, device=times.device)).flatten()

        def cut(x: Tensor) -> Tensor:
            # (B, layers, heads, M, L, head)
            slots = F.pad(x, (0, 0, missing, 0)).index_select(3, index).unflatten(3, (M, L))
            return slots.permute(0, 3, 1, 2, 4, 5).flatten(0, 1)

        padded = F.pad(self.allowed[:, times].float(), (missing, 0))
        valid = padded.gather(2, index.reshape(1, M, L).expand(B, M, L)).flatten(0, 1)
        return Cache(cut(self.keys), cut(self.values), valid, self.tokens[:, times].flatten())


class TransformerBlock(nn.Module):
    """Applies attention, then a two-layer network, each with a skip connection.

    Args:
        attention: maps (rows, width) to itself.
        width: of input and output.
        hidden: width between the two layers.
        order: as in ``Transformer``, like ``activation`` and ``dropout``.
        scale: of the initial output of the second layer.
    """

    def __init__(
        self,
        attention: Attention,
        width: int,
        hidden: int,
        order: Order,
        activation: Activation,
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.pre, self.activation, self.dropout = order == "pre", ACTIVATIONS[activation], dropout
        self.attention = attention
        self.norm = nn.LayerNorm(width)
        self.inner = Linear(width, hidden)
        self.outer = Linear(hidden, width, scale=scale)
        self.outer_norm = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, past: KeysValues | None, view: View, generator: Generator | None
    ) -> tuple[Tensor, KeysValues]:
        """Map (B * T, width) to itself; the rest is as in ``Attention``."""
        read, memory = self.attention(self.norm(x) if self.pre else x, past, view, generator)
        x = x + drop(read, self.dropout, generator)
        x = x if self.pre else self.norm(x)
        y = self.activation(self.inner(self.outer_norm(x) if self.pre else x))
        if generator is None:
            # The bias joins the skip connection: OpenVINO's compiler (2026.4, one thread) crashes
            # on a product with a bias between an activation and a sum that is normalised.
            assert self.outer.bias is not None
            x = x + self.outer.bias + F.linear(y, self.outer.weight)
        else:
            x = x + drop(self.outer(y), self.dropout, generator)
        return (x if self.pre else self.outer_norm(x)), memory


class Transformer(nn.Module):
    """Stacks causal blocks over tokens that the caller has embedded.

    The arguments are the fields of ``TransformerConfig``; ``heads * head`` need not be ``width``.
    Positions "sinusoid" are absolute, added to the tokens: they can grow past all that occurred in
    training.  For policies that run long use "age", "shaw" or "xl", which see the age of a key.

    Source: Vaswani et al. 2017, arXiv:1706.03762; "all" as in TransDreamer, arXiv:2202.09481.
    """

    def __init__(
        self,
        *,
        width: int,
        layers: int,
        heads: int,
        head: int,
        hidden: int,
        window: int,
        order: Order = "pre",
        positions: Positions = "age",
        activation: Activation = "relu",
        readout: Readout = "last",
        dropout: float = 0.0,
        score_scale: ScoreScale = "head",
    ) -> None:
        super().__init__()
        if window < 2:
            raise ValueError(f"window: expected at least 2 tokens, got {window}")
        self.window, self.shape, self.readout = window, (layers, heads, window, head), readout
        self.outputs = width * (layers if readout == "all" else 1)
        scale = (2 * layers) ** -0.5 if order == "pre" else 1.0
        self.blocks = nn.ModuleList()
        for _ in range(layers):
            scores = make_scores(
                positions, heads=heads, head=head, width=width, window=window,
                divisor=width if score_scale == "width" else head,
            )  # fmt: skip
            attention = Attention(width, heads, head, scores, scale=scale, dropout=dropout)
            self.blocks.append(
                TransformerBlock(attention, width, hidden, order, activation, scale, dropout)
            )
        closing = order == "pre" and readout == "last"
        self.norm = nn.LayerNorm(width) if closing else None
        self.rates: Tensor | None
        sinusoid = rates(width) if positions == "sinusoid" else None
        self.register_buffer("rates", sinusoid, persistent=False)

    def initial(self, batch: int) -> Cache:
        """Make an empty cache; its tensors begin with (batch,)."""
        new = next(self.parameters()).new_zeros
        shape = (batch, *self.shape)
        return Cache(new(shape), new(shape), new(batch, self.window), new(batch))

    def forward(
        self,
        x: Tensor,
        is_first: Tensor,
        cache: Cache | None = None,
        *,
        generator: Generator | None = None,
    ) -> tuple[Tensor, History]:
        """Process T tokens at once.

        Args:
            x: (B, T, width) tokens.
            is_first: (B, T) bool, where a token begins an episode and attends to none before.
            cache: state before the first token; None for an empty one.
            generator: draws the dropout; None applies none.

        Returns:
            (B, T, outputs), and the history that holds the cache after each token.
        """
        B, T, width = x.shape
        view, count = self._view(is_first, cache)
        if self.rates is not None:
            x = x + sinusoids(count - 1.0, self.rates)
        rows, outputs, keys, values = x.reshape(B * T, width), [], [], []
        for i, block in enumerate(self.blocks):
            before = (
                None if cache is None else (cache.keys[:, i, :, 1:], cache.values[:, i, :, 1:])
            )
            rows, (key, value) = block(rows, before, view, generator)
            outputs.append(rows)
            keys.append(key)
            values.append(value)
        if self.readout == "all":
            rows = torch.cat(outputs, -1)
        elif self.norm is not None:
            rows = self.norm(rows)
        held = torch.stack(keys, 1), torch.stack(values, 1)
        history = History(*held, view.allowed.squeeze(1), count, self.window)
        return rows.reshape(B, T, self.outputs), history

    def step(self, x: Tensor, is_first: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Map tokens (N, width) and ``is_first`` (N,) bool to (N, outputs) and the next cache.

        This is exported, with a batch of one.  Several tokens per agent step need as many calls,
        or one call of ``forward`` (which exports unless positions are "age" or "shaw").
        """
        out, history = self(x.unsqueeze(1), is_first.unsqueeze(1), cache)
        return out.squeeze(1), history.last()

    def _view(self, is_first: Tensor, cache: Cache | None) -> tuple[View, Tensor]:
        """Compute what T tokens may attend to, and their positions (B, T), counted from 1."""
        T, L = is_first.shape[1], self.window
        P = 0 if cache is None else L - 1
        episode = is_first.float().cumsum(1)
        # (B, T, T): of the same episode and not in the future
        causal = torch.ones(T, T, dtype=torch.bool, device=is_first.device).tril()
        allowed = (episode.unsqueeze(2) == episode.unsqueeze(1)) & causal
        count = allowed.float().sum(2)
        if cache is not None:
            old = episode == 0.0
            count = count + cache.tokens.unsqueeze(1) * old.float()
            past = (cache.valid[:, 1:] > 0.5).unsqueeze(1) & old.unsqueeze(2)
            allowed = torch.cat([past, allowed], 2)
        if T == 1 and P == L - 1:
            return View(allowed.unsqueeze(1), None), count
        times = torch.arange(P + T, device=is_first.device)
        age = times[P:].unsqueeze(1) - times
        slot = (L - 1 - age).clamp(0, L - 1)
        return View((allowed & (age < L)).unsqueeze(1), slot), count
