"""Heads predict a reward or value, or whether the episode goes on, from a latent."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wm_core.nn.blocks import OutputMLP, Style
from wm_core.nn.dists import TwoHot, bernoulli_loss, symexp, symlog


class TwoHotHead(OutputMLP):
    """Predicts a real number from (..., F) feat by logits (..., bins) of two-hot symexp bins.

    Initially it predicts exactly 0.
    """

    def __init__(self, feat: int, units: int, layers: int, bins: int, style: Style) -> None:
        super().__init__(feat, units, layers, bins, style, scale=0.0)
        self.twohot = TwoHot(bins)

    def value(self, raw: Tensor) -> Tensor:
        """(...) expected value of logits ``raw`` (..., bins)."""
        return self.twohot.mean(raw)

    def error(self, raw: Tensor, target: Tensor) -> Tensor:
        """(...) cross entropy of logits ``raw`` (..., bins) to ``target`` (...)."""
        return self.twohot.loss(raw, target)

    def size_of(self, raw: Tensor) -> Tensor:
        """(...) size of the terms that ``value`` sums, to which its rounding error is relative."""
        return (torch.softmax(raw, -1) * self.twohot.centers.abs()).sum(-1)


class NormalHead(OutputMLP):
    """Predicts the mean of a unit normal from (..., F) feat; with ``log``, of the number's symlog.

    Source: Dreamer, arXiv:1912.01603 (plain); DayDreamer (code), arXiv:2206.14176 (symlog).
    """

    def __init__(self, feat: int, units: int, layers: int, style: Style, *, log: bool) -> None:
        super().__init__(feat, units, layers, 1, style, scale=0.0)
        self.log = log

    def forward(self, feat: Tensor) -> Tensor:
        """(...) mean."""
        return super().forward(feat).squeeze(-1)

    def value(self, raw: Tensor) -> Tensor:
        """(...) expected value of the mean ``raw`` (...)."""
        return symexp(raw) if self.log else raw

    def error(self, raw: Tensor, target: Tensor) -> Tensor:
        """(...) half the squared error of ``raw`` (...) to ``target`` (...)."""
        return 0.5 * (raw - (symlog(target) if self.log else target).detach()).square()

    def size_of(self, raw: Tensor) -> Tensor:
        """(...) size of the value of ``raw`` (...)."""
        return self.value(raw).abs()


NumberHead = TwoHotHead | NormalHead
NumberKind = Literal["twohot", "normal", "symlog"]


def number_head(
    kind: NumberKind, inputs: int, units: int, layers: int, bins: int, style: Style
) -> NumberHead:
    """The head that predicts one real number from (..., inputs), of the given kind."""
    if kind == "twohot":
        return TwoHotHead(inputs, units, layers, bins, style)
    return NormalHead(inputs, units, layers, style, log=kind == "symlog")


class ContHead(OutputMLP):
    """Predicts from (..., F) feat the probability that the episode goes on."""

    def __init__(self, feat: int, units: int, layers: int, style: Style) -> None:
        super().__init__(feat, units, layers, 1, style)

    def forward(self, feat: Tensor) -> Tensor:
        """(...) logit."""
        return super().forward(feat).squeeze(-1)

    def mean(self, feat: Tensor) -> Tensor:
        """(...) probability in [0, 1]."""
        return self(feat).sigmoid()

    def loss(self, feat: Tensor, target: Tensor) -> Tensor:
        """(...) cross entropy to ``target`` (...), a probability in [0, 1]."""
        return bernoulli_loss(self(feat), target)
