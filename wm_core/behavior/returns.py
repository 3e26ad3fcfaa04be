"""Computes λ-returns (targets of the critic), imagined or along recorded experience.

reward[:, t] and cont[:, t] belong to *arriving* in state t, so the target of state t reads index
t + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lambda_return(
    reward: Tensor,
    cont: Tensor,
    value: Tensor,
    *,
    discount: float,
    lam: float,
    is_last: Tensor | None = None,
) -> Tensor:
    """Mix n-step returns of every length with weight ``lam``.

    Args:
        reward: (B, T + 1) reward on arriving in each state; ``[:, 0]`` is not read.
        cont: (B, T + 1) probability in [0, 1] that the episode goes on, same timing.
        value: (B, T + 1) estimate of each state's return to bootstrap with.
        discount: factor per agent step, in (0, 1].
        lam: 0 is one-step TD, 1 is Monte Carlo with a bootstrap at the end.
        is_last: (B, T + 1) bool, states after which the record continues with another episode:
            the return stops there and bootstraps with ``value``.

    Returns:
        (B, T) target for the states 0 .. T - 1.

    Source: Hafner et al. 2020 (Dreamer), arXiv:1912.01603, section 3, V_λ.
    """
    if not reward.shape == cont.shape == value.shape:
        raise ValueError(
            f"reward, cont, value differ in shape: {reward.shape}, {cont.shape}, {value.shape}"
        )
    mix = torch.full_like(value, lam) if is_last is None else lam * (~is_last).float()
    live = discount * cont
    known = reward + live * (1.0 - mix) * value
    onward = live * mix
    target, targets = value[:, -1], []
    for t in range(reward.shape[1] - 1, 0, -1):
        target = known[:, t] + onward[:, t] * target
        targets.append(target)
    return torch.stack(targets[::-1], dim=1)


def survival(cont: Tensor) -> Tensor:
    """(B, T) chance that the episode still goes on after each state, the first included.

    Args:
        cont: (B, T) probability that the episode goes on from each state.
    """
    return torch.cumprod(cont, 1)
