"""What reads the past of a model whose posterior has no memory: transformer, state space, LSTM.

Each takes a whole sequence at once or one step from a memory, and both ways agree.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from wm_core.nn.gru import LSTM
from wm_core.nn.ssm import StateSpace
from wm_core.nn.transformer import Cache, Transformer
from wm_core.world.settings import WorldConfig

Memory = tuple[Tensor, ...]


class Backbone(Protocol):
    """A causal map from inputs to ``deter``."""

    width: int  #: of the inputs
    names: tuple[str, ...]  #: of the memory's tensors
    remembers: bool  #: whether a memory is small enough to be stored for every step

    def initial(self, n: int) -> Memory:
        """Memories (n, ...) that hold nothing."""
        ...

    def __call__(
        self, x: Tensor, is_first: Tensor, memory: Memory, generator: torch.Generator | None
    ) -> tuple[Tensor, Any]:
        """(B, T, D) deter, and a history, of inputs (B, T, K, width) with K tokens a step."""
        ...

    def step(self, x: Tensor, is_first: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """(N, D) deter and the next memory, of inputs (N, K, width) and ``is_first`` (N,)."""
        ...

    def at(self, history: Any, times: Tensor) -> Memory:
        """Memories (B * M, ...), b-major, after the steps ``times`` (M,)."""
        ...


class TransformerBackbone(nn.Module):
    """A transformer; its memory is a ring cache of keys and values."""

    names = Cache._fields
    remembers = False

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        settings = config.transformer.model_dump(exclude={"tokens"})
        self.net = Transformer(**settings)
        self.width = config.transformer.width
        self.tokens = 3 if config.transformer.tokens == "split" else 1  #: K, tokens of a step

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
    """State-space layers; their memory is the layers' states."""

    names = ("states",)
    remembers = True

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        ssm = config.ssm
        self.net = StateSpace(
            width=config.deter, state=ssm.state, layers=ssm.layers, blocks=ssm.blocks,
            dropout=ssm.dropout,
        )  # fmt: skip
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

    names = ("output", "cell")
    remembers = True

    def __init__(self, config: WorldConfig) -> None:
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


BACKBONES: dict[str, type[TransformerBackbone | StateSpaceBackbone | LSTMBackbone]] = {
    "transformer": TransformerBackbone,
    "ssm": StateSpaceBackbone,
    "lstm": LSTMBackbone,
}
