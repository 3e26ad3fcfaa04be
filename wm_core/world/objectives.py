"""What makes latents good: the KL between posterior and prior, balanced and with free nats."""

from __future__ import annotations

from torch import Tensor

from wm_core.nn.dists import categorical_kl


def dynamics_losses(
    posterior: Tensor, prior: Tensor, *, free_nats: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The two halves of KL(posterior || prior): one trains the prior, one the posterior.

    Args:
        posterior: (..., S, K) log-probabilities.
        prior: (..., S, K) log-probabilities.
        free_nats: each step's loss has no gradient below this many nats.

    Returns:
        (...) dyn_loss with the posterior stopped, (...) rep_loss with the prior stopped, and
        (...) the plain KL in nats without gradient.

    Source: DreamerV3, arXiv:2301.04104, equation 5; clipped per step, before averaging.
    """
    dyn = categorical_kl(posterior.detach(), prior)
    rep = categorical_kl(posterior, prior.detach())
    return dyn.clamp_min(free_nats), rep.clamp_min(free_nats), dyn.detach()
