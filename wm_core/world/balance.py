"""Balances the losses of a world model by weights that are learnt together with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_core.world.settings import BalanceConfig

PARTS = ("observation", "reward", "dynamics")  #: what has a weight of its own
_PARTS_OF = {"reward_loss": "reward", "dyn_loss": "dynamics", "rep_loss": "dynamics"}
_UNWEIGHTED = ("cont_loss", "entropy_loss")


class LossBalance(nn.Module):
    """Divides each part of the loss by a scale of its own, which grows with what it divides.

    A part of loss L has the weight 1 / s and costs log(1 + s) more, with s learnt.  At rest s is
    about L where L is large and about its square root where L is small, so no part outweighs the
    others by its size, and one that is nearly solved does not come to outweigh them either.

    Args:
        config: the rate at which the scales are learnt.
        shown: the reconstruction only shows latents and trains none, so that it has no weight.

    Source: HarmonyDream, Ma et al. 2024, arXiv:2310.00344, section 3.3, the rectified loss.
    Deviates: the continuation of episodes, which its tasks do not predict, has no weight; the
    scales have a learning rate of their own.
    """

    def __init__(self, config: BalanceConfig, *, shown: bool = False) -> None:
        super().__init__()
        self.lr, self._shown = config.lr, shown
        self.log_scale = nn.Parameter(torch.zeros(len(PARTS)))

    def forward(
        self, *groups: dict[str, Tensor]
    ) -> tuple[list[dict[str, Tensor]], Tensor, dict[str, Tensor]]:
        """Weigh the losses, name -> (), of each of ``groups``.

        Returns:
            The groups, weighted; () what the scales cost; and the weights as metrics.
        """
        weight = torch.exp(-self.log_scale)
        weighted = [
            {name: loss * weight[at] if (at := self._part(name)) is not None else loss
             for name, loss in group.items()}
            for group in groups
        ]  # fmt: skip
        metrics = {f"weight/{part}": weight[i].detach() for i, part in enumerate(PARTS)}
        return weighted, F.softplus(self.log_scale).sum(), metrics

    def _part(self, name: str) -> int | None:
        """Tell the place in ``PARTS`` of the loss ``name``; None where it has no weight."""
        if name in _UNWEIGHTED or (self._shown and name.startswith("recon_loss")):
            return None
        return PARTS.index(_PARTS_OF.get(name, "observation"))
