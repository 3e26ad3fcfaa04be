"""Recurrent layers: DreamerV3's block-diagonal GRU, the dense GRU of its predecessors, an LSTM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.nn.blocks import LAYER_NORM_EPS, BlockLinear, Linear, NormRms, forget


class BlockGRU(nn.Module):
    """Computes one step of a GRU whose recurrent weights are block-diagonal.

    Each block reads its own slice of ``deter`` and all of a shared input.  The caller maps the
    shared input (scaled by ``fan_in``), so that parts of it that are known in advance can be
    computed for all times at once.

    Source: DreamerV3 (Nature code), block-GRU: candidate = tanh(reset * cand),
    update = sigmoid(u - 1).
    """

    def __init__(self, deter: int, blocks: int, shared: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.fan_in = deter + blocks * shared  # as if one layer read what all blocks read
        self.inner = BlockLinear(deter, deter, blocks, fan_in=self.fan_in)
        self.norm = NormRms(deter)
        self.gates = BlockLinear(deter, 3 * deter, blocks)

    def forward(self, deter: Tensor, shared: Tensor) -> Tensor:
        """Compute the next ``deter`` (N, D) from ``deter`` and the mapped shared input (N, D)."""
        x = self.norm(self.inner(deter) + shared)
        # (N, G, 3, D / G)
        gates = self.gates(x).float().reshape(x.shape[0], self.blocks, 3, -1)
        return _gated(deter, *(g.flatten(1) for g in gates.unbind(2)))


class GRU(nn.Module):
    """Computes one step of a dense GRU; ``norm`` puts a LayerNorm before its gates.

    Source: DreamerV2 (code), arXiv:2010.02193: candidate = tanh(reset * cand),
    update = sigmoid(u - 1).
    Deviates: Dreamer v1's cell has neither norm nor the -1, and resets the recurrent part alone.
    """

    def __init__(self, inputs: int, deter: int, *, norm: bool) -> None:
        super().__init__()
        self.gates = Linear(inputs + deter, 3 * deter, bias=not norm)
        self.norm = nn.LayerNorm(3 * deter, eps=LAYER_NORM_EPS) if norm else None

    def forward(self, deter: Tensor, x: Tensor) -> Tensor:
        """Compute the next ``deter`` (N, D) from ``deter`` (N, D) and the input ``x`` (N, I)."""
        gates = self.gates(torch.cat([x, deter], -1)).float()
        gates = gates if self.norm is None else self.norm(gates)
        return _gated(deter, *gates.chunk(3, -1))


def _gated(deter: Tensor, reset: Tensor, candidate: Tensor, update: Tensor) -> Tensor:
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update - 1.0)
    return update * candidate + (1.0 - update) * deter


class LSTM(nn.Module):
    """Runs a long short-term memory over a sequence; the inputs are mapped before the loop.

    Source: Hochreiter and Schmidhuber 1997; as in World Models, arXiv:1803.10122, appendix A.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.inner = Linear(inputs, 4 * outputs, fan_in=inputs + outputs)
        self.recur = Linear(outputs, 4 * outputs, bias=False, fan_in=inputs + outputs)

    def forward(
        self, x: Tensor, is_first: Tensor, memory: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute outputs and cells (B, T, D) from ``x`` (B, T, I) and those before it, (B, D).

        Both are set to zero where ``is_first`` (B, T), before the input is read.
        """
        out, cell = memory
        inputs, outs, cells = self.inner(x).float().unbind(1), [], []
        for t, mapped in enumerate(inputs):
            first = is_first[:, t]
            out, cell = self._advance(mapped, forget(out, first), forget(cell, first))
            outs.append(out)
            cells.append(cell)
        return torch.stack(outs, 1), torch.stack(cells, 1)

    def step(
        self, x: Tensor, is_first: Tensor, memory: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Compute output and cell (N, D) after one more input (N, I)."""
        out, cell = memory
        mapped = self.inner(x).float()
        return self._advance(mapped, forget(out, is_first), forget(cell, is_first))

    def _advance(self, mapped: Tensor, out: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        enter, forget, leave, new = (mapped + self.recur(out).float()).chunk(4, -1)
        # a forget gate that begins open, as is usual
        cell = torch.sigmoid(forget + 1.0) * cell + torch.sigmoid(enter) * torch.tanh(new)
        return torch.sigmoid(leave) * torch.tanh(cell), cell
