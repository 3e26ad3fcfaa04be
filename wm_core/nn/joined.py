"""Lets several processes, the workers, compute one update: each a share of the same batch.

Within ``joining`` the functions here speak of the joined batch, whose rows are those of the first
worker, then those of the second, and so on; outside of it they are plain torch.  A loss that is a
mean over the rows of a share needs none of them: gradients are averaged over the workers.  What is
needed is to draw noise (``rand``), and to compute what is not such a mean.

Every worker draws the noise of the joined batch and takes its own rows, from generators that are
alike.  So the workers draw different noise, and N of them do what one does, but for rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor


@dataclass(frozen=True)
class Place:
    """Which of the workers this process is; all have the same number of rows."""

    rank: int = 0
    size: int = 1


_place = Place()  #: of this process; changed by ``joining`` alone


@contextlib.contextmanager
def joining(place: Place) -> Iterator[None]:
    """Compute a share for a while; the default process group of torch joins the workers."""
    global _place
    before, _place = _place, place
    try:
        yield
    finally:
        _place = before


def rows_in_all(rows: int) -> int:
    """Rows of the joined batch, where this process has ``rows``."""
    return rows * _place.size


def rand(
    shape: tuple[int, ...],
    *,
    generator: Generator,
    device: torch.device | None = None,
    dim: int = 0,
) -> Tensor:
    """(*shape) this process's rows of uniform noise in [0, 1); rows lie along ``dim``."""
    whole = [n * _place.size if axis == dim else n for axis, n in enumerate(shape)]
    drawn = torch.rand(whole, generator=generator, device=device)
    return drawn.narrow(dim, _place.rank * shape[dim], shape[dim])


def kept(like: Tensor, share: float, generator: Generator) -> Tensor:
    """(N, ...) ones with chance ``share`` and else zeros, in the shape and kind of ``like``."""
    if _place.size == 1:
        return torch.empty_like(like).bernoulli_(share, generator=generator)
    whole = like.new_empty((rows_in_all(len(like)), *like.shape[1:]))
    whole.bernoulli_(share, generator=generator)
    return whole.narrow(0, _place.rank * len(like), len(like))


def own_rows(rows: Tensor, count: int) -> Tensor:
    """(n,) those of ``rows`` (N,), numbers of the joined batch, that are among our ``count``."""
    if _place.size == 1:
        return rows
    first = _place.rank * count
    return rows[(rows >= first) & (rows < first + count)] - first


def mean_over(values: Tensor, rows_of_all: int) -> Tensor:
    """() our part of the mean of ``rows_of_all`` joined values, of which ``values`` (n,) are ours.

    Workers may have different numbers of them; averaged over the workers it is the mean of all.
    """
    if _place.size == 1:
        return values.mean()
    return part_of_mean(values.sum(), rows_of_all)


def part_of_mean(total: Tensor, rows_of_all: int) -> Tensor:
    """() what ``mean_over`` gives for values whose sum is ``total`` ()."""
    return total * (_place.size / rows_of_all)


def total(value: Tensor) -> Tensor:
    """(...) the sum of every worker's ``value`` (...), without gradient."""
    if _place.size == 1:
        return value
    summed = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


def mean(value: Tensor) -> Tensor:
    """(...) the mean of every worker's ``value`` (...), whose gradient goes to our own."""
    return value if _place.size == 1 else _Mean.apply(value)


def mean_of_rows(values: Tensor) -> Tensor:
    """(...) the mean over the rows of every worker's ``values`` (n, ...), without gradient.

    Workers may have different numbers of them.
    """
    if _place.size == 1:
        return values.detach().mean(0)
    count = values.new_tensor(float(len(values)))
    return total(values.sum(0)) / total(count).clamp_min(1.0)


def rows_of_all(values: Tensor) -> Tensor:
    """(N, ...) the rows of every worker, of which ``values`` (n, ...) are ours.

    A loss that every worker computes of all rows has the gradient that it has in one process.
    """
    return values if _place.size == 1 else _Rows.apply(values)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Put the mean over the workers in place of the gradients (...) of ``parameters`` (...)."""
    if _place.size == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for kind in {g.dtype for g in gradients}:
        alike = [g for g in gradients if g.dtype == kind]
        flat = torch.cat([g.flatten() for g in alike])
        dist.all_reduce(flat)
        parts = flat.div_(_place.size).split([g.numel() for g in alike])
        torch._foreach_copy_(alike, [p.view_as(g) for p, g in zip(parts, alike, strict=True)])


class _Mean(torch.autograd.Function):
    """Averages over the workers; averaged gradients have the factor 1 / size already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return total(value) / _place.size

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


class _Rows(torch.autograd.Function):
    """Gathers rows; the gradient of our own counts ``size`` times, as it will be averaged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.rows = len(values)
        if not values.numel():
            return values.new_empty((ctx.rows * _place.size, *values.shape[1:]))
        own = values.contiguous().view(torch.uint8)  # which every backend can send
        parts = [torch.empty_like(own) for _ in range(_place.size)]
        dist.all_gather(parts, own)
        return torch.cat(parts).view(values.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.narrow(0, _place.rank * ctx.rows, ctx.rows) * _place.size
