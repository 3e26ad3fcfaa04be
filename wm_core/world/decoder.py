"""Latent to observation: what the world model believes the sensors said."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wm_core.config import WorldConfig
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ImageSpec, Spec
from wm_core.nn.blocks import MLP, BlockLinear, Dense, Linear, NormSilu
from wm_core.nn.conv import ConvUp
from wm_core.nn.dists import sigmoid_error, symexp, symlog
from wm_core.world.encoder import seed_shape, to_float
from wm_core.world.latent import Latent


class ImageDecoder(nn.Module):
    """One image from a seed to which ``deter`` and ``stoch`` each contribute.

    Deviates: the layer that stoch passes through is 4 U wide, not 2 U; so the sizes have about as
    many parameters as their names say (12m: 12.1 million, the slow critic included).  A block of
    deter draws some rows of the seed, DreamerV3's some channels of all of it: with ``micro`` on
    one store, the image's loss was 6 % lower so after 300 updates and 2 % after 400.
    """

    def __init__(self, image: ImageSpec, config: WorldConfig) -> None:
        super().__init__()
        self.shape = seed_shape(image, config)
        seed = math.prod(self.shape)
        if seed % config.blocks:
            raise SettingsError(
                f"the decoder starts from {seed} numbers, expected a multiple of the "
                f"{config.blocks} blocks; choose another --world.depth or --world.blocks"
            )
        stoch = config.groups * config.classes
        self.from_deter = BlockLinear(config.deter, seed, config.blocks)
        self.from_stoch = nn.Sequential(
            Dense(stoch, 4 * config.units), Linear(4 * config.units, seed)
        )
        self.norm = NormSilu(self.shape[0])
        self.up = ConvUp(config.encoder, image.channels, config.depth)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """(N, H, W, C) logits of pixels in [0, 1], from deter (N, D) and flat stoch (N, S K)."""
        channels, rows, columns = self.shape
        seed = self.from_deter(deter) + self.from_stoch(stoch)
        grid = self.norm(seed.reshape(-1, rows, columns, channels))
        return self.up(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class VectorDecoder(nn.Module):
    """One vector under symlog, from feat (..., F) to (..., n)."""

    def __init__(self, feat: int, size: int, config: WorldConfig) -> None:
        super().__init__()
        self.layers = MLP(feat, config.units, config.vector_layers)
        self.out = Linear(config.units, size)

    def forward(self, feat: Tensor) -> Tensor:
        return self.out(self.layers(feat)).float()


class Decoder(nn.Module):
    """Every camera and every vector of ``spec``, and the loss of each."""

    def __init__(self, spec: Spec, config: WorldConfig) -> None:
        super().__init__()
        feat = config.deter + config.groups * config.classes
        self.images = nn.ModuleDict({k: ImageDecoder(s, config) for k, s in spec.images.items()})
        self.vectors = nn.ModuleDict(
            {k: VectorDecoder(feat, s.size, config) for k, s in spec.vectors.items()}
        )

    def _logits(self, key: str, latent: Latent) -> Tensor:
        """(N, H, W, C) logits of pixels in [0, 1] of the latents, leading axes made flat."""
        flat = latent.flat()
        return self.images[key](flat.deter, flat.stoch.flatten(1))

    def forward(self, latent: Latent) -> dict[str, Tensor]:
        """Images (..., H, W, C) uint8 and vectors (..., n), as ``latent`` (...) has them."""
        lead = latent.deter.shape[:-1]
        made = {}
        for key in self.images:
            pixels = torch.sigmoid(self._logits(key, latent).float())
            made[key] = (pixels * 255.0).round().to(torch.uint8).unflatten(0, lead)
        feat = latent.feat
        for key, vector in self.vectors.items():
            made[key] = symexp(vector(feat))
        return made

    def loss(self, latent: Latent, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per input, (...): squared error summed over pixels in [0, 1] or over symlog elements."""
        lead = latent.deter.shape[:-1]
        losses = {}
        for key in self.images:
            target = to_float(obs[key].flatten(0, len(lead) - 1))
            losses[key] = sigmoid_error(self._logits(key, latent), target).unflatten(0, lead)
        feat = latent.feat if self.vectors else None
        for key, vector in self.vectors.items():
            losses[key] = (vector(feat) - symlog(obs[key])).square().sum(-1)
        return losses
