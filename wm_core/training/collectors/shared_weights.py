"""Hands an agent's weights from process to process through memory that both see."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNED = 16  #: bytes


class SharedWeights:
    """Places every tensor of a module's state in one block of memory.

    Reader and writer take turns by messages of their own: there is no lock that a process which
    is killed could keep.

    Args:
        module: whose parameters and buffers are handed over; one of the same shapes lies on the
            other side.
        memory: a writable block of at least ``size_of(module)`` bytes.
    """

    def __init__(self, module: nn.Module, memory: Any) -> None:
        self._module = module
        block = torch.frombuffer(memory, dtype=torch.uint8)
        self._views = {
            name: block[begin:end].view(tensor.dtype).view(tensor.shape)
            for name, tensor, begin, end in _places(module)
        }

    @staticmethod
    def size_of(module: nn.Module) -> int:
        """Count the bytes that the state of ``module`` takes."""
        return max((end for *_, end in _places(module)), default=0) + _ALIGNED

    def put(self) -> None:
        """Copy the module's weights into the memory."""
        for name, tensor in _tensors(self._module):
            self._views[name].copy_(tensor)

    def take(self) -> None:
        """Copy what is in the memory into the module."""
        for name, tensor in _tensors(self._module):
            tensor.copy_(self._views[name])


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and values (...) of parameters and buffers; optimisers keep theirs."""
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            yield name, value


def _places(module: nn.Module) -> Iterator[tuple[str, Tensor, int, int]]:
    begin = 0
    for name, tensor in _tensors(module):
        end = begin + tensor.numel() * tensor.element_size()
        yield name, tensor, begin, end
        begin = -(-end // _ALIGNED) * _ALIGNED
