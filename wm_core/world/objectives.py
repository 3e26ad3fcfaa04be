"""What makes latents good: the KL between posterior and prior, and what may stand beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from wm_core.world.latent import Latent
from wm_core.world.prior import Prior
from wm_core.world.settings import WorldConfig
from wm_core.world.space import Space


def dynamics_losses(
    space: Space, prior: Prior, latent: Latent, seen: Tensor | None, config: WorldConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves of KL(posterior || prior): one trains the prior, one the posterior.

    Args:
        space: of the latents.
        prior: its guess is made from ``latent.deter``.
        latent: (B, T) posterior.
        seen: (B, T) bool, the steps that count; None: all.
        config: floors, and what the posterior is drawn to.

    Returns:
        () dyn_loss with the posterior stopped, () rep_loss with its aim stopped, both floored at
        the free nats and not yet scaled, and () the plain rep_loss in nats without gradient.

    Source: DreamerV2, arXiv:2010.02193, "KL balancing"; DreamerV3, arXiv:2301.04104, "World model
    learning" (free nats of each half, per step); Dreamer (code): free nats of the mean; World
    Models, arXiv:1803.10122: a unit normal; TWM, arXiv:2303.07109, loss of the observation model:
    consistency.
    """
    assert latent.params is not None
    guess = prior(latent.deter)
    dyn = prior.loss(guess, latent)
    if config.rep == "unit":
        rep = space.kl(latent.params, space.unit(latent.params))
    elif config.rep == "consistency":
        # cross entropy of the posterior under what the prior had expected
        rep = -(guess.detach().exp() * latent.params).sum((-2, -1))
    else:
        rep = space.kl(latent.params, guess.detach())
    # a mixture's loss is a log-density, for which a floor would mean nothing
    floor = config.free_nats if config.prior == "net" else None
    plain = _mean(rep.detach(), seen)
    return _floored(dyn, seen, floor, config), _floored(rep, seen, config.free_nats, config), plain


def _floored(
    loss: Tensor, seen: Tensor | None, floor: float | None, config: WorldConfig
) -> Tensor:
    if floor is None:
        return _mean(loss, seen)
    if config.free_over == "mean":
        return _mean(loss, seen).clamp_min(floor)
    return _mean(loss.clamp_min(floor), seen)


def _mean(values: Tensor, seen: Tensor | None) -> Tensor:
    """() mean over the steps (B, T) that count."""
    if seen is None:
        return values.mean()
    weight = seen.float()
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


def barlow_loss(made: Tensor, embed: Tensor, *, redundancy: float) -> Tensor:
    """() how far the correlation of two views is from the identity.

    Args:
        made: (N, E) projection of feat.
        embed: (N, E) the encoder's output, without gradient.
        redundancy: weight of what lies off the diagonal.

    Source: R2-Dreamer, arXiv:2603.18202 (code); Barlow Twins, arXiv:2103.03230, equation 1.
    """
    one, other = _standardized(made), _standardized(embed)
    correlation = one.T @ other / len(one)
    diagonal = torch.diagonal(correlation)
    off = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1.0).square().sum() + redundancy * off


def _standardized(x: Tensor) -> Tensor:
    """(N, E) with mean 0 and deviation 1 over N."""
    x = x.float()
    return (x - x.mean(0)) / (x.std(0) + 1e-5)
