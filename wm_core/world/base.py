"""Interfaces of the parts that carry a latent through time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn

from wm_core.world.imagine_fused import FusedDream
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import LatentDist
from wm_core.world.prior import Prior

Carry = tuple[Tensor, ...]
Memory = tuple[Tensor, ...]
Imagine = Callable[[int, Latent, Tensor], Latent]  #: (t, (N,), (N, A)) -> (N,) one step later


class Recurrence(Protocol):
    """One recurrent step of an RSSM: a backbone whose settings say ``recurrent``.

    It is made from (settings, length of the flat stoch, A, style).
    """

    def prepare(self, action: Tensor) -> Tensor:
        """(..., P) what the step needs of ``action`` (..., A), computed for all times at once."""
        ...

    __call__: Callable[..., Any]  #: ``forward``, by way of ``nn.Module``

    def forward(self, deter: Tensor, stoch: Tensor, prepared: Tensor) -> Tensor:
        """(N, D) next deter from deter (N, D), flat stoch (N, .) and prepared action (N, P)."""
        ...


class Backbone(Protocol):
    """A causal network from a sequence of tokens to ``deter``, for a posterior q(z | e).

    It takes a whole sequence at once, or one step and a memory, and both ways must agree.  It is
    made from its settings alone.
    """

    width: int  #: width of the input tokens
    names: tuple[str, ...]  #: names of the memory's tensors, which are a policy's carry
    remembers: bool  #: whether a memory is small enough to be stored for every step of replay

    def initial(self, n: int) -> Memory:
        """Empty memories, tensors (n, ...)."""
        ...

    __call__: Callable[..., Any]  #: ``forward``, by way of ``nn.Module``

    def forward(
        self, x: Tensor, is_first: Tensor, memory: Memory, generator: Generator | None
    ) -> tuple[Tensor, Any]:
        """(B, T, D) deter and a history that ``at`` reads.

        Args:
            x: (B, T, K, width) inputs, K tokens a step.
            is_first: (B, T) bool; the past is forgotten there.
            memory: (B, ...) of the step before the first; an empty tuple is an empty memory.
            generator: decides the dropout; None drops nothing.
        """
        ...

    def step(self, x: Tensor, is_first: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """(N, D) deter and the next memory, of inputs (N, K, width) and ``is_first`` (N,)."""
        ...

    def at(self, history: Any, times: Tensor) -> Memory:
        """Memories (B * M, ...), b-major, after the steps ``times`` (M,)."""
        ...


class Recorded(NamedTuple):
    """What dynamics read of recorded steps (B, T)."""

    prev_action: Tensor  #: (B, T, A) action that led to each step
    embed: Tensor  #: (B, T, E)
    is_first: Tensor  #: (B, T) bool; the past is forgotten there
    reward: Tensor  #: (B, T) that arrived with each step; read by dynamics with reward tokens


class Dynamics(nn.Module, ABC):
    """Carries a latent through time, with a prior and a posterior over its stochastic part.

    Noise comes in as uniforms in [0, 1).  A carry is what acting must keep between two steps, as
    tensors (N, ...) in the order of ``carry_names``; zeros are the carry before the first step.
    """

    latent_dist: LatentDist  #: family of the distributions over stoch
    prior: Prior  #: predicts stoch from deter
    carry_names: tuple[str, ...]
    representation: tuple[nn.Module, ...]  #: modules that learn to encode, not to predict
    remembers: bool  #: whether a carry is small enough to be stored for every step of replay

    @abstractmethod
    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """(n,) latents before the first observation."""

    @abstractmethod
    def carry_of(self, latent: Latent) -> Carry:
        """The tensors of ``latent`` (N,), or (B, T) if it remembers, that the next step needs."""

    @abstractmethod
    def latent_of(self, carry: Carry) -> Latent:
        """(N,) latent from which the next step can be taken, made of a carry (N, ...)."""

    @abstractmethod
    def observe(
        self, start: Latent, steps: Recorded, uniform: Tensor, generator: Generator | None = None
    ) -> Latent:
        """(B, T) posteriors along data.

        Args:
            start: (B,) latent of the step before the first; ignored where ``is_first``.
            steps: (B, T) data.
            uniform: (B, T, *latent_dist.shape) in [0, 1).
            generator: decides the dropout; None drops nothing.
        """

    @abstractmethod
    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        """(N,) posterior after one more observation: ``observe`` for one step."""

    @abstractmethod
    def imagination_starts(self, posterior: Latent, times: Tensor) -> Latent:
        """(B * M,) latents to imagine from, b-major: ``posterior`` (B, T) at ``times`` (M,)."""

    @abstractmethod
    def advance(
        self, latent: Latent, action: Tensor, reward: Tensor | None
    ) -> tuple[Tensor, Carry]:
        """(N, D) deter and the memory (N, ...) after ``action`` (N, A), as in ``imagine_step``."""

    def imagine_step(
        self,
        latent: Latent,
        action: Tensor,
        uniform: Tensor,
        *,
        reward: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Latent:
        """(N,) sample from the prior after ``action`` (N, A).

        Args:
            latent: (N,) to go on from.
            action: (N, A); beyond [-1, 1] it counts as its clipped self, as the robot sends it.
            uniform: (N, *prior.noise_shape) in [0, 1).
            reward: (N,) that arrived with ``latent``; for dynamics with reward tokens.
            temperature: above 1 makes the sample more random.
        """
        return self.sampled(*self.advance(latent, action, reward), uniform, temperature)

    def imaginer(self, uniform: Tensor) -> Imagine | None:
        """A faster form of ``imagine_step`` for many steps without gradient; None: there is none.

        Args:
            uniform: (T_imag, N, *prior.noise_shape) in [0, 1).
        """
        return None

    def dream(self, uniform: Tensor) -> FusedDream | None:
        """A faster form of many ``imagine_step`` with gradients to actions; None: there is none.

        Args:
            uniform: (T_imag, N, *prior.noise_shape) in [0, 1).
        """
        return None

    def sampled(
        self, deter: Tensor, memory: Any, uniform: Tensor, temperature: float = 1.0
    ) -> Latent:
        """(...) sample from the prior at ``deter`` (..., D), by uniforms (..., *noise_shape)."""
        prediction = self.prior(deter)
        params = prediction if isinstance(prediction, Tensor) else None
        return Latent(deter, self.prior.sample(prediction, uniform, temperature), params, memory)

    def predictable(self, is_first: Tensor) -> Tensor | None:
        """(B, T) bool, the steps that the prior could predict from a past; None: all of them."""
        return None
