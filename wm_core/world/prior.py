"""From ``deter`` to what will be seen: a distribution like the posterior's, or a mixture."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn

from wm_core.nn.blocks import MLP, Linear, Style
from wm_core.nn.mdn import Mixture, MixtureHead
from wm_core.world.latent import Latent
from wm_core.world.settings import WorldConfig
from wm_core.world.space import Space


class Prior(Protocol):
    """A distribution over stoch (..., *space.shape), of ``deter`` (..., D)."""

    noise_shape: tuple[int, ...]  #: of the uniforms that one draw takes

    def __call__(self, deter: Tensor) -> Any:
        """The distribution that ``deter`` (..., D) promises, of any kind."""
        ...

    def sample(self, guess: Any, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        """(..., *space.shape) draw that uniforms (..., *noise_shape) decide."""
        ...

    def loss(self, guess: Any, posterior: Latent) -> Tensor:
        """(...) nats that the posterior (...) is away, whose gradient reaches the prior alone."""
        ...


class NetPrior(nn.Module):
    """An MLP to a distribution of the same kind as the posterior."""

    def __init__(self, space: Space, config: WorldConfig) -> None:
        super().__init__()
        self.space, self.noise_shape = space, space.shape
        style = Style(config.norm, config.activation)
        self.layers = MLP(config.deter_size, config.hidden, config.prior_layers, style)
        self.out = Linear(config.hidden, space.width)

    def forward(self, deter: Tensor) -> Tensor:
        """Params (..., ., .) of ``deter`` (..., D)."""
        return self.space.params(self.out(self.layers(deter)))

    def sample(self, guess: Tensor, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        params = guess if temperature == 1.0 else self.space.heat(guess, temperature)
        return self.space.sample(params, self.space.noise(uniform))

    def loss(self, guess: Tensor, posterior: Latent) -> Tensor:
        assert posterior.params is not None
        return self.space.kl(posterior.params.detach(), guess)


class MixturePrior(nn.Module):
    """A mixture of normals for each dimension; the loss is the mean over dimensions.

    Source: World Models, arXiv:1803.10122, appendix A.
    """

    def __init__(self, space: Space, config: WorldConfig) -> None:
        super().__init__()
        self.noise_shape = (*space.shape, 2)
        self.head = MixtureHead(config.deter_size, space.size, config.mixtures)

    def forward(self, deter: Tensor) -> Mixture:
        return self.head(deter)

    def sample(self, guess: Mixture, uniform: Tensor, temperature: float = 1.0) -> Tensor:
        return guess.sample(uniform, temperature)

    def loss(self, guess: Mixture, posterior: Latent) -> Tensor:
        return -guess.log_prob(posterior.stoch.detach()).mean(-1)


def make_prior(space: Space, config: WorldConfig) -> NetPrior | MixturePrior:
    """The prior that ``config`` names."""
    return (MixturePrior if config.prior == "mdn" else NetPrior)(space, config)
