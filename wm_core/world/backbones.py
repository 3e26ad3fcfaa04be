"""Backbones for models with a posterior q(z | e): transformer, state space, LSTM, GRU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wm_core.nn.blocks import forget
from wm_core.nn.gru import GRU, LSTM
from wm_core.nn.ssm import StateSpace
from wm_core.nn.transformer import Cache, Transformer
from wm_core.world.base import Backbone, Memory
from wm_core.world.part_settings import (
    LSTMConfig,
    SSMConfig,
    TokenGRUConfig,
    TransformerConfig,
)


class TransformerBackbone(nn.Module):
    """A transformer; its memory is a ring cache of keys and values."""

    names: tuple[str, ...] = Cache._fields
    remembers = False

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.net = Transformer(**config.model_dump(exclude={"tokens", "token_activation"}))
        self.width = config.width
        self.tokens = 3 if config.tokens == "split" else 1  #: K, tokens of a step

    def initial(self, n: int) -> Memory:
        return self.net.initial(n)

    def forward(
        self, x: Tensor, is_first: Tensor, memory: Memory, generator: torch.Generator | None
    ) -> tuple[Tensor, Any]:
        # windows of replay begin without a memory, which costs no work where it is left out
        out, history = self.net(
            x.flatten(1, 2), self._flags(is_first), Cache(*memory) if memory else None,
            generator=generator,
        )  # fmt: skip
        return out[:, self.tokens - 1 :: self.tokens], history

    def step(self, x: Tensor, is_first: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        out, history = self.net(x, self._flags(is_first.unsqueeze(1)), Cache(*memory))
        return out[:, -1], history.last()

    def at(self, history: Any, times: Tensor) -> Memory:
        return history.at(times * self.tokens + self.tokens - 1)

    def _flags(self, is_first: Tensor) -> Tensor:
        """(B, T K) of (B, T): only the first token of a step begins an episode."""
        if self.tokens == 1:
            return is_first
        others = torch.zeros_like(is_first).unsqueeze(-1).expand(-1, -1, self.tokens - 1)
        return torch.cat([is_first.unsqueeze(-1), others], -1).flatten(1)


class StateSpaceBackbone(nn.Module):
    """A stack of state-space layers; its memory is the layers' states."""

    names: tuple[str, ...] = ("states",)
    remembers = True

    def __init__(self, config: SSMConfig) -> None:
        super().__init__()
        self.net = StateSpace(width=config.deter, **config.model_dump(exclude={"deter"}))
        self.width = config.deter

    def initial(self, n: int) -> Memory:
        return (self.net.initial(n),)

    def forward(
        self, x: Tensor, is_first: Tensor, memory: Memory, generator: torch.Generator | None
    ) -> tuple[Tensor, Any]:
        out, states = self.net(
            x.squeeze(2), is_first, memory[0] if memory else None, generator=generator
        )
        return out, (states,)

    def step(self, x: Tensor, is_first: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        out, states = self.net.step(x.squeeze(1), is_first, memory[0])
        return out, (states,)

    def at(self, history: Any, times: Tensor) -> Memory:
        return tuple(h[:, times].flatten(0, 1) for h in history)


class LSTMBackbone(nn.Module):
    """A long short-term memory; its memory is output and cell."""

    names: tuple[str, ...] = ("output", "cell")
    remembers = True

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__()
        self.width = config.hidden
        self.net = LSTM(config.hidden, config.deter)

    def initial(self, n: int) -> Memory:
        zeros = self.net.recur.weight.new_zeros(n, self.net.outputs)
        return zeros, zeros

    def forward(
        self, x: Tensor, is_first: Tensor, memory: Memory, generator: torch.Generator | None
    ) -> tuple[Tensor, Any]:
        out, cell = self.net(x.squeeze(2), is_first, self._pair(memory, len(x)))
        return out, (out, cell)

    def step(self, x: Tensor, is_first: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        out, cell = self.net.step(x.squeeze(1), is_first, self._pair(memory, len(x)))
        return out, (out, cell)

    def at(self, history: Any, times: Tensor) -> Memory:
        return tuple(h[:, times].flatten(0, 1) for h in history)

    def _pair(self, memory: Memory, n: int) -> tuple[Tensor, Tensor]:
        out, cell = memory or self.initial(n)
        return out, cell


class GRUBackbone(nn.Module):
    """A gated recurrent unit with a layer norm; its memory is its output."""

    names: tuple[str, ...] = ("output",)
    remembers = True

    def __init__(self, config: TokenGRUConfig) -> None:
        super().__init__()
        self.width, self.deter_size = config.hidden, config.deter
        self.net = GRU(config.hidden, config.deter, norm=True)

    def initial(self, n: int) -> Memory:
        return (self.net.gates.weight.new_zeros(n, self.deter_size),)

    def forward(
        self, x: Tensor, is_first: Tensor, memory: Memory, generator: torch.Generator | None
    ) -> tuple[Tensor, Any]:
        (out,), outs = memory or self.initial(len(x)), []
        for token, first in zip(x.squeeze(2).unbind(1), is_first.unbind(1), strict=True):
            out = self.net(forget(out, first), token)
            outs.append(out)
        deter = torch.stack(outs, 1)
        return deter, (deter,)

    def step(self, x: Tensor, is_first: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        (before,) = memory or self.initial(len(x))
        out = self.net(forget(before, is_first), x.squeeze(1))
        return out, (out,)

    def at(self, history: Any, times: Tensor) -> Memory:
        return tuple(h[:, times].flatten(0, 1) for h in history)


if TYPE_CHECKING:  # mypy holds each backbone to the protocol
    _: tuple[type[Backbone], ...] = (
        TransformerBackbone, StateSpaceBackbone, LSTMBackbone, GRUBackbone,
    )  # fmt: skip
