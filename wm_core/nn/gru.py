"""The block-diagonal gated recurrent unit of DreamerV3."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.nn.blocks import BlockLinear, NormSilu


class BlockGRU(nn.Module):
    """One step of a GRU whose recurrent weights are block-diagonal.

    Each block sees its own slice of ``deter`` and the whole of a shared input.  The shared
    input's linear map is the caller's (``fan_in`` says how it must be scaled), so that parts of
    it that are known beforehand can be computed for all times at once.

    Source: DreamerV3 (Nature code), block-GRU: candidate = tanh(reset * cand),
    update = sigmoid(u - 1).
    """

    def __init__(self, deter: int, blocks: int, shared: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.fan_in = deter // blocks + shared
        self.inner = BlockLinear(deter, deter, blocks, fan_in=self.fan_in)
        self.norm = NormSilu(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def forward(self, deter: Tensor, shared: Tensor) -> Tensor:
        """(N, D) next ``deter`` from ``deter`` (N, D) and the mapped shared input (N, D)."""
        x = self.norm(self.inner(deter) + shared)
        # (N, G, 3, D / G)
        gates = self.gates(x).float().reshape(x.shape[0], self.blocks, 3, -1)
        reset, candidate, update = (g.flatten(1) for g in gates.unbind(2))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1.0)
        return update * candidate + (1.0 - update) * deter
