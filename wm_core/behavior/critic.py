"""A critic estimates the return of a state; a slow copy (target network) follows it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from wm_core.behavior.settings import CriticConfig
from wm_core.nn.blocks import STYLE, Style
from wm_core.world.heads import number_head


class Critic(nn.Module):
    """A value head, and a copy that follows it slowly and is never trained itself.

    The copy holds the head back (``regularize``: DreamerV3), makes targets and baselines in its
    stead (``bootstrap``: DreamerV2), or has no use (``none``: Dreamer v1).
    """

    def __init__(
        self, inputs: int, units: int, bins: int, config: CriticConfig, style: Style = STYLE
    ) -> None:
        super().__init__()
        self.config = config
        self.fast = number_head(config.kind, inputs, units, config.layers, bins, style)
        self.slow = copy.deepcopy(self.fast).requires_grad_(False)

    @torch.no_grad()
    def update_target(self, rate: float | None = None) -> None:
        """Move the slow copy towards the fast one; ``rate`` 1 makes them equal."""
        slow: list[Tensor] = list(self.slow.parameters())
        fast: list[Tensor] = list(self.fast.parameters())
        torch._foreach_lerp_(slow, fast, self.config.target_rate if rate is None else rate)

    def value(self, part: Tensor) -> Tensor:
        """(...) value for targets and baselines, for the part (..., F) of a latent."""
        head = self.slow if self.config.target_network == "bootstrap" else self.fast
        return head.value(head(part))

    def loss(self, raw: Tensor, part: Tensor, target: Tensor) -> Tensor:
        """(...) error to ``target`` (...), with regularize also to the slow copy's value.

        Args:
            raw: of the fast head for ``part``.
            part: (..., F) part of a latent that it reads.
            target: (...) return.
        """
        loss = self.fast.error(raw, target)
        if self.config.target_network != "regularize":
            return loss
        with torch.no_grad():
            slow = self.slow.value(self.slow(part))
        return loss + self.config.target_scale * self.fast.error(raw, slow)
