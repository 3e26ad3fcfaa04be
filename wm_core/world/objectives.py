"""Losses that shape the latents: the KL between posterior and prior, and Barlow Twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn

from wm_core.nn import joined
from wm_core.nn.blocks import Linear
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import LatentDist
from wm_core.world.prior import Prior
from wm_core.world.settings import BarlowConfig, KLConfig, LatentSizes, ReconConfig


class Objective(Protocol):
    """Makes the losses that latents learn from, besides the KL, from (settings, sizes, E)."""

    def losses(self, posterior: Latent, embed: Tensor) -> dict[str, Tensor]:
        """Scaled losses, name -> (), of posteriors (B, T) and their embeddings (B, T, E)."""
        ...


class Reconstruction(nn.Module):
    """Adds no loss: the decoder's own are what latents learn from."""

    def __init__(self, config: ReconConfig, sizes: LatentSizes, embed: int) -> None:
        super().__init__()

    def losses(self, posterior: Latent, embed: Tensor) -> dict[str, Tensor]:
        return {}


class BarlowTwins(Linear):
    """Projects feat to the embedding's size, and correlates it with the embedding.

    Source: R2-Dreamer, arXiv:2603.18202 (code).
    """

    def __init__(self, config: BarlowConfig, sizes: LatentSizes, embed: int) -> None:
        super().__init__(sizes.of("feat"), embed, bias=False)
        self.config = config

    def losses(self, posterior: Latent, embed: Tensor) -> dict[str, Tensor]:
        projected, target = self(posterior.feat).flatten(0, -2), embed.detach().flatten(0, -2)
        projected, target = joined.rows_of_all(projected), joined.rows_of_all(target)
        loss = barlow_loss(projected, target, redundancy=self.config.redundancy)
        return {"barlow_loss": self.config.scale * loss}


if TYPE_CHECKING:  # mypy holds each objective to the protocol
    _: tuple[type[Objective], ...] = (Reconstruction, BarlowTwins)


def dynamics_losses(
    dist: LatentDist, prior: Prior, latent: Latent, counted: Tensor | None, config: KLConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves of KL(posterior || prior): one trains the prior, one the posterior.

    Args:
        dist: family of the latents' distributions.
        prior: predicts from ``latent.deter``.
        latent: (B, T) posterior.
        counted: (B, T) bool, the steps that count; None: all.
        config: free nats, and the target of the posterior.

    Returns:
        () dyn_loss without gradient to the posterior, () rep_loss without gradient to its target,
        both floored at the free nats and not yet scaled, and () the KL itself in nats, of the
        posterior from its target, without gradient.

    Source: DreamerV2, arXiv:2010.02193, "KL balancing"; DreamerV3, arXiv:2301.04104, "World model
    learning" (free nats of each half, per step); Dreamer (code): free nats of the mean; World
    Models, arXiv:1803.10122: a unit normal; TWM, arXiv:2303.07109, loss of the observation model:
    consistency.
    """
    assert latent.params is not None
    prediction = prior(latent.deter)
    dyn = prior.loss(prediction, latent)
    if config.rep == "unit":
        rep = dist.kl(latent.params, dist.unit(latent.params))
    elif config.rep == "consistency":
        # cross entropy of the posterior under what the prior predicted
        rep = -(prediction.detach().exp() * latent.params).sum((-2, -1))
    else:
        rep = dist.kl(latent.params, prediction.detach())
    dyn_mean = _floored(dyn, counted, config) if prior.has_kl else _mean(dyn, counted)
    nats = dyn if config.rep == "consistency" else rep  # a cross entropy is no KL
    return dyn_mean, _floored(rep, counted, config), _mean(nats.detach(), counted)


def _floored(loss: Tensor, counted: Tensor | None, config: KLConfig) -> Tensor:
    """() mean over the steps (B, T) that count, floored at the free nats."""
    if config.free_over == "mean":
        return joined.mean(_mean(loss, counted)).clamp_min(config.free_nats)
    return _mean(loss.clamp_min(config.free_nats), counted)


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """() mean over the steps (B, T) that count."""
    if counted is None:
        return values.mean()
    weight = counted.float()
    return (values * weight).sum() / joined.mean(weight.sum()).clamp_min(1.0)


def barlow_loss(projected: Tensor, embed: Tensor, *, redundancy: float) -> Tensor:
    """() distance between the identity and the correlation of two views.

    Args:
        projected: (N, E) projection of feat.
        embed: (N, E) the encoder's output, without gradient.
        redundancy: weight of the elements off the diagonal.

    Source: R2-Dreamer, arXiv:2603.18202 (code); Barlow Twins, arXiv:2103.03230, equation 1.
    """
    one, other = _standardized(projected), _standardized(embed)
    rows, elements = one.shape
    diagonal = (one * other).sum(0) / rows
    if rows < elements:
        # the same sum over the squares of the correlation (E, E), by products of (N, N)
        every = (one * ((other @ other.T).float() @ one)).sum() / rows**2
    else:
        every = (one.T @ other / rows).square().sum()
    return (diagonal - 1.0).square().sum() + redundancy * (every - diagonal.square().sum())


def _standardized(x: Tensor) -> Tensor:
    """(N, E) ``x`` shifted and scaled to mean 0 and deviation 1 over N."""
    x = x.float()
    centered = x - x.mean(0)
    # not x.std(0) or a norm, which take 20 and 10 times as long over the first axis on a CPU
    variance = centered.square().sum(0) / max(1, len(x) - 1)
    # where an element is the same in all rows the root would have no gradient
    return centered / (variance.clamp_min(1e-20).sqrt() + 1e-5)
