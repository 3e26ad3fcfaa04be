"""Priors predict ``stoch`` from ``deter``, as a distribution like the posterior's or a mixture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from wm_core.nn.blocks import OutputMLP, Style
from wm_core.nn.mdn import Mixture, MixtureHead
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import LatentDist
from wm_core.world.part_settings import MDNConfig, NetConfig


class Prior(Protocol):
    """Predicts a distribution over stoch (..., *latent_dist.shape) from ``deter`` (..., D)."""

    noise_shape: tuple[int, ...]  #: shape of the uniforms that one draw takes
    has_kl: bool  #: whether ``loss`` is a KL, for which free nats mean something

    __call__: Callable[..., Any]  #: ``forward``, by way of ``nn.Module``

    def forward(self, deter: Tensor) -> Any:
        """The predicted distribution, an object of the prior's own, of ``deter`` (..., D)."""
        ...

    def sample(self, prediction: Any, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        """(..., *latent_dist.shape) sample that uniforms (..., *noise_shape) in [0, 1) decide."""
        ...

    def loss(self, prediction: Any, posterior: Latent) -> Tensor:
        """(...) nats between prediction and posterior (...); gradients reach the prior alone."""
        ...


class NetPrior(OutputMLP):
    """An MLP that predicts a distribution of the same family as the posterior."""

    has_kl = True

    def __init__(
        self, config: NetConfig, deter: int, latent_dist: LatentDist, style: Style
    ) -> None:
        super().__init__(deter, config.units, config.layers, latent_dist.width, style)
        self.latent_dist, self.noise_shape = latent_dist, latent_dist.shape

    def forward(self, deter: Tensor) -> Tensor:
        """(..., ., .) parameters of the distribution, from ``deter`` (..., D)."""
        return self.latent_dist.params(self.raw(deter))

    def raw(self, deter: Tensor) -> Tensor:
        """(..., width) numbers that the parameters are made of, from ``deter`` (..., D)."""
        return super().forward(deter)

    def sample(self, prediction: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        dist, params = self.latent_dist, prediction
        if temperature != 1.0:
            params = dist.with_temperature(params, temperature)
        return dist.sample(params, dist.noise(uniform))

    def loss(self, prediction: Tensor, posterior: Latent) -> Tensor:
        assert posterior.params is not None
        return self.latent_dist.kl(posterior.params.detach(), prediction)


class MixturePrior(nn.Module):
    """Predicts a mixture of normals for each dimension; the loss is the mean over dimensions.

    Source: World Models, arXiv:1803.10122, appendix A.
    """

    has_kl = False  # a log-density, for which a floor would mean nothing

    def __init__(
        self, config: MDNConfig, deter: int, latent_dist: LatentDist, style: Style
    ) -> None:
        super().__init__()
        self.noise_shape = (*latent_dist.shape, 2)
        self.head = MixtureHead(deter, latent_dist.size, config.mixtures)

    def forward(self, deter: Tensor) -> Mixture:
        return self.head(deter)

    def sample(self, prediction: Mixture, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        return prediction.sample(uniform, temperature)

    def loss(self, prediction: Mixture, posterior: Latent) -> Tensor:
        return -prediction.log_prob(posterior.stoch.detach()).mean(-1)


if TYPE_CHECKING:  # mypy holds each prior to the protocol
    _: tuple[type[Prior], ...] = (NetPrior, MixturePrior)
