"""What a world model knows at a time: its latent state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wm_core.contract.batch import Batch
from wm_core.world.settings import Reads


@dataclass(frozen=True, slots=True)
class Latent:
    """What a world model knows at one time, or at many: any leading axes (...).

    ``params`` are those of the distribution that ``stoch`` was drawn from, as ``LatentDist`` has
    them; an initial latent has none.  ``memory`` is what the backbone carries besides ``deter``;
    along a sequence it may be the history from which the backbone makes the memory of any time.
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
        """(..., F) deter and flat stoch, concatenated."""
        return torch.cat([self.deter, self.flat_stoch], -1)

    def read(self, part: Reads) -> Tensor:
        """(..., width) the part that a network reads."""
        if part == "feat":
            return self.feat
        return self.deter if part == "deter" else self.flat_stoch

    def flat(self, rows: Tensor | None = None) -> Latent:
        """(N,) latents with all leading axes flattened, or ``rows`` of them; without memory."""
        deter, stoch = self.deter.flatten(0, -2), self.stoch.flatten(0, self.deter.ndim - 2)
        return Latent(deter, stoch) if rows is None else Latent(deter[rows], stoch[rows])

    def split(self, rows: int) -> Iterator[Latent]:
        """Give (n, ...) views of ``rows`` latents each, the last of what is left; no memory."""
        parts = zip(self.deter.split(rows), self.stoch.split(rows), strict=True)
        return (Latent(deter, stoch) for deter, stoch in parts)

    def detach(self) -> Latent:
        """The same values without their history in the graph."""
        params = None if self.params is None else self.params.detach()
        memory = tuple(m.detach() if isinstance(m, Tensor) else m for m in self.memory)
        if hasattr(self.memory, "_fields"):  # a named tuple stays one
            memory = type(self.memory)(*memory)  # type: ignore[call-arg]
        return Latent(self.deter.detach(), self.stoch.detach(), params, memory)


def to_device(batch: Batch[np.ndarray], device: torch.device | str = "cpu") -> Batch[Tensor]:
    """Move a batch (B, T, ...) to ``device``; on the CPU its tensors share memory with it."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

    return batch.map(tensor)
