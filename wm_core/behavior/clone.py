"""Draws the actor to the actions of recorded steps: behaviour cloning beside what dreams teach."""

from __future__ import annotations

import torch
from torch import Tensor

from wm_core.behavior.settings import CloneConfig
from wm_core.contract.batch import Batch
from wm_core.nn import joined
from wm_core.nn.dists import ActionDist


def cloned_steps(batch: Batch[Tensor], config: CloneConfig) -> Tensor:
    """(B, T - 1) float, 1 where the action that was recorded at a step is cloned, else 0.

    The action of a step is known by the step after it, so the last of a window has none; neither
    has the last one of an episode, after which no action led anywhere.

    Args:
        batch: (B, T) recorded experience.
        config: which steps are cloned.
    """
    shown = torch.zeros_like(batch.is_first)
    if config.steps == "all":
        shown = torch.ones_like(batch.is_first)
    if config.steps in ("demonstrations", "both") and batch.is_demonstration is not None:
        shown = shown | batch.is_demonstration
    if config.steps in ("interventions", "both") and batch.is_intervention is not None:
        shown = shown | batch.is_intervention
    return (shown[:, :-1] & ~batch.is_first[:, 1:]).float()


def clone_loss(dist: ActionDist, batch: Batch[Tensor], config: CloneConfig) -> Tensor:
    """() negative log-likelihood of recorded actions, a mean over the steps that are cloned.

    It is 0 where the batch has no such step.

    Args:
        dist: (B, T - 1, A) what the actor would do at the posteriors of the steps before the last.
        batch: (B, T) recorded experience.
        config: its weight, and which steps count.

    Source: TD3+BC, Fujimoto & Gu 2021, arXiv:2106.06860, equation 3.
    Deviates: the log-likelihood of a distribution in place of the squared distance of a mean, and
    no weight that follows the size of values, as advantages are divided by their range already.
    """
    weight = cloned_steps(batch, config)
    count = joined.mean(weight.sum()).clamp_min(1.0)
    return -config.scale * (weight * dist.log_prob(batch.prev_action[:, 1:])).sum() / count
