"""The latent state of a world model, and the batch of experience it is learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from wm_core.world.settings import Part


@dataclass(frozen=True, slots=True)
class Latent:
    """What a world model knows at one time, or at many: any leading axes (...).

    ``params`` are those of the distribution that ``stoch`` was drawn from (see ``world.space``);
    an initial latent has none.  ``memory`` is what the backbone carries beside ``deter``; along
    a sequence it may hold the history from which the dynamics cut the memory of any time.
    """

    deter: Tensor  #: (..., D)
    stoch: Tensor  #: (..., S, K) one-hot, or (..., Z)
    params: Tensor | None = None  #: (..., S, K) log-probabilities, or (..., 2, Z) mean and std
    memory: tuple[Tensor, ...] = ()

    @property
    def flat_stoch(self) -> Tensor:
        """(..., S K) or (..., Z)."""
        return self.stoch.flatten(self.deter.ndim - 1)

    @property
    def feat(self) -> Tensor:
        """(..., F) deter, then stoch made flat."""
        return torch.cat([self.deter, self.flat_stoch], -1)

    def read(self, part: Part) -> Tensor:
        """(..., width) the part that a network reads."""
        if part == "feat":
            return self.feat
        return self.deter if part == "deter" else self.flat_stoch

    def flat(self, rows: Tensor | None = None) -> Latent:
        """(N,) the latents with all leading axes made one, or ``rows`` of them; no memory."""
        deter, stoch = self.deter.flatten(0, -2), self.stoch.flatten(0, self.deter.ndim - 2)
        return Latent(deter, stoch) if rows is None else Latent(deter[rows], stoch[rows])

    def detach(self) -> Latent:
        """The same values without their history in the graph."""
        params = None if self.params is None else self.params.detach()
        memory = tuple(m.detach() if isinstance(m, Tensor) else m for m in self.memory)
        if hasattr(self.memory, "_fields"):  # a named tuple stays one
            memory = type(self.memory)(*memory)  # type: ignore[call-arg]
        return Latent(self.deter.detach(), self.stoch.detach(), params, memory)


class Window(Protocol):
    """What ``TorchBatch.of`` reads: arrays (B, T, ...) that a replay sampler makes."""

    @property
    def obs(self) -> Mapping[str, np.ndarray]: ...

    @property
    def prev_action(self) -> np.ndarray: ...

    @property
    def reward(self) -> np.ndarray: ...

    @property
    def is_first(self) -> np.ndarray: ...

    @property
    def is_last(self) -> np.ndarray: ...

    @property
    def is_terminal(self) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class TorchBatch:
    """Windows of experience on the learner's device; images stay uint8 up to the encoder."""

    obs: dict[str, Tensor]  #: images (B, T, H, W, C) uint8, vectors (B, T, n)
    prev_action: Tensor  #: (B, T, A), the action that led here; zeros at is_first
    reward: Tensor  #: (B, T), arrived with obs
    is_first: Tensor  #: (B, T) bool
    is_last: Tensor  #: (B, T) bool
    is_terminal: Tensor  #: (B, T) bool

    @classmethod
    def of(cls, window: Window, device: torch.device | str = "cpu") -> TorchBatch:
        """The arrays of ``window`` on ``device``; on the CPU they share memory with it."""

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        arrays: dict[str, Any] = {
            f.name: tensor(getattr(window, f.name)) for f in fields(cls) if f.name != "obs"
        }
        return cls(obs={k: tensor(v) for k, v in window.obs.items()}, **arrays)

    def first(self, n: int) -> TorchBatch:
        """The first ``n`` steps of every window."""
        rest = {f.name: getattr(self, f.name)[:, :n] for f in fields(self) if f.name != "obs"}
        return replace(self, obs={k: v[:, :n] for k, v in self.obs.items()}, **rest)
