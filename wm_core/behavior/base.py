"""The interface of behaviours: all that agent, exporter and library know of one.

A behaviour learns what to do; its ``PolicyHead`` is the part of it that acts.  The same head acts
in training and in the exported file, so a behaviour says once how an action is chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor, nn

from wm_core.contract.batch import Batch
from wm_core.nn.optim import ParameterGroup
from wm_core.world.base import Carry
from wm_core.world.latent import Latent
from wm_core.world.settings import Reads
from wm_core.world.world_model import WorldModel


class Fitness(ABC):
    """Evaluates candidates in the environment itself."""

    @abstractmethod
    def __call__(self, candidates: np.ndarray, generation: int) -> np.ndarray:
        """Compute the mean returns (P,) of candidates (P, n), all over the same episodes.

        Args:
            candidates: (P, n).
            generation: counted from 1; every generation plays other episodes.
        """

    @abstractmethod
    def take_cpu_s(self) -> float:
        """CPU seconds that other processes have used for it since the last call."""

    @abstractmethod
    def close(self) -> None:
        """End what it computes, and release what it holds; a second call does nothing."""


@dataclass(frozen=True, slots=True)
class BehaviorLosses:
    """The losses of one update of a behaviour, and the numbers to report about it."""

    losses: dict[str, Tensor]  #: name -> (), scaled
    metrics: dict[str, Tensor]  #: name -> ()


class Choice(NamedTuple):
    """One action, and what the next choice needs."""

    action: Tensor  #: (N, A), not yet clipped to [-1, 1]
    carry: Carry = ()  #: (N, ...) each, in the order of ``PolicyHead.carry``
    gap: Tensor | None = None  #: (N, S) log-ratio of the two best of each draw; None: no draws
    part: Tensor | None = None  #: (N, width) of the latent that it was made from, for estimates


class Estimate(NamedTuple):
    """A number about a state that goes out beside the action."""

    value: Tensor  #: (N,)
    scale: Tensor  #: (N,) size of the terms that ``value`` sums: rounding is relative to it


class PolicyHead(nn.Module, ABC):
    """The part of a behaviour that acts; the exported policy holds its submodules.

    Zeros are the carry of a policy that has chosen nothing yet; whoever calls ``choose`` zeroes
    the carry at ``is_first``.

    Attributes:
        reads: the part of the latent that it reads; ``stoch`` needs no memory of the past.
        noise_shape: of the uniforms that one choice takes.
        carry: name -> shape, without the batch axis, of what a choice hands to the next.
        estimates: name -> meaning of the numbers that go out beside the action.
    """

    reads: Reads = "feat"
    noise_shape: tuple[int, ...]
    carry: Mapping[str, tuple[int, ...]] = {}
    estimates: Mapping[str, str] = {}

    @abstractmethod
    def choose(self, latent: Latent, carry: Carry, uniform: Tensor | None) -> Choice:
        """Choose (N, A) actions.

        Args:
            latent: (N,) posterior of the newest observation.
            carry: (N, ...) of the choice before, as ``carry`` names it.
            uniform: (N, *noise_shape) in [0, 1) that decide the draw; None: the likeliest action.
        """

    def estimate(self, latent: Latent, choice: Choice) -> dict[str, Estimate]:
        """Estimate by name what ``estimates`` lists, for ``choice`` made in (N,) ``latent``."""
        return {}

    def initial(self, n: int, device: torch.device | None = None) -> Carry:
        """Zeros (n, ...): the carry of a policy that has chosen nothing yet."""
        return tuple(torch.zeros(n, *shape, device=device) for shape in self.carry.values())


class Behavior(nn.Module, ABC):
    """Learns what to do from what a world model has observed.

    What it must keep between two updates stands in its ``state_dict``, as for any module.  It is
    made by ``make(action, world, settings, seed=)``, as ``BEHAVIORS`` names it.

    Attributes:
        wants_environment: whether it learns from ``fitness``.
        fitness: evaluates candidates in the environment; None where there is none.
    """

    wants_environment = False
    fitness: Fitness | None = None

    @abstractmethod
    def head(self, world: WorldModel) -> PolicyHead:
        """Make the head that acts, of this behaviour's modules and, for a planner, ``world``'s."""

    @abstractmethod
    def loss(
        self, world: WorldModel, batch: Batch[Tensor], posterior: Latent, generator: Generator
    ) -> BehaviorLosses:
        """Compute the losses of one update.

        Args:
            world: the world model, trained by these losses where they reach it by ``posterior``.
            batch: (B, T) recorded experience.
            posterior: (B, T) latents of ``batch``, with gradients into ``world``.
            generator: of every draw, on the device of ``posterior``.
        """

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """Name the groups of weights that optimisers move.

        The settings of the optimiser have learning rates for groups named ``actor`` and
        ``critic``; any other group that says none is trained at the world model's.
        """
        return {"actor": ParameterGroup.of(self)}

    def begin(self) -> None:
        """Do what depends on the initial weights, once they are drawn."""

    def update_target(self, updates: int) -> None:
        """Move target networks after update number ``updates``."""
