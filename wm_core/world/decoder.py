"""Latent to observation: what the world model believes the sensors said."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ImageSpec, Spec
from wm_core.nn.blocks import MLP, BlockLinear, Dense, Linear, Style, norm_act
from wm_core.nn.conv import ConvUp, shape_up
from wm_core.nn.dists import sigmoid_error
from wm_core.world.encoder import check_size
from wm_core.world.latent import Latent
from wm_core.world.settings import WorldConfig


class ImageDecoder(nn.Module):
    """One image from a seed to which ``deter`` and ``stoch`` each contribute what is read of them.

    Deviates: the layer that stoch passes through is 4 U wide, not 2 U; so the sizes have about as
    many parameters as their names say (12m: 12.1 million, the slow critic included).  A block of
    deter draws some rows of the seed, DreamerV3's some channels of all of it: with ``micro`` on
    one store, the image's loss was 6 % lower so after 300 updates and 2 % after 400.
    """

    def __init__(self, image: ImageSpec, config: WorldConfig) -> None:
        super().__init__()
        check_size(image, config)
        self.shape = shape_up(config.encoder, config.depth, image.height, image.width)
        style = Style(config.norm, config.activation)
        seed, reads = math.prod(self.shape), config.decoder_reads
        self.from_deter = _from_deter(seed, config) if reads in ("feat", "deter") else None
        self.from_stoch = _from_stoch(seed, config) if reads in ("feat", "stoch") else None
        plain = config.encoder == "v1"  # Dreamer v1's has nothing between seed and convolutions
        self.norm = nn.Identity() if plain else norm_act(self.shape[0], style)
        self.up = ConvUp(config.encoder, image.channels, config.depth, config.activation)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """(N, H, W, C) raw pixels, from deter (N, D) and flat stoch (N, .)."""
        channels, rows, columns = self.shape
        parts = [] if self.from_deter is None else [self.from_deter(deter)]
        parts += [] if self.from_stoch is None else [self.from_stoch(stoch)]
        seed = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        grid = self.norm(seed.reshape(-1, rows, columns, channels))
        return self.up(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _from_deter(seed: int, config: WorldConfig) -> nn.Module:
    """(N, D) to the seed: in blocks where deter comes from blocks."""
    if not _in_blocks(config):
        return Linear(config.deter_size, seed)
    if seed % config.blocks:
        raise SettingsError(
            f"the decoder starts from {seed} numbers, expected a multiple of the "
            f"{config.blocks} blocks; choose another --world.depth or --world.blocks"
        )
    return BlockLinear(config.deter, seed, config.blocks)


def _from_stoch(seed: int, config: WorldConfig) -> nn.Module:
    """(N, .) flat stoch to the seed: through a hidden layer where DreamerV3 has one."""
    if not _in_blocks(config):
        return Linear(config.stoch_size, seed)
    style = Style(config.norm, config.activation)
    return nn.Sequential(
        Dense(config.stoch_size, 4 * config.units, style), Linear(4 * config.units, seed)
    )


def _in_blocks(config: WorldConfig) -> bool:
    return config.backbone == "gru" and config.cell == "block"


class VectorDecoder(nn.Module):
    """One vector under symlog, from what is read (..., F) to (..., n)."""

    def __init__(self, size: int, config: WorldConfig) -> None:
        super().__init__()
        inputs, style = (
            config.width_of(config.decoder_reads),
            Style(config.norm, config.activation),
        )
        self.layers = MLP(inputs, config.units, config.vector_layers, style)
        self.out = Linear(config.units, size)

    def forward(self, part: Tensor) -> Tensor:
        return self.out(self.layers(part)).float()


class Decoder(nn.Module):
    """Every camera and every vector of ``spec``, and the loss of each."""

    def __init__(self, spec: Spec, config: WorldConfig) -> None:
        super().__init__()
        self.spec, self.reads = spec, config.decoder_reads
        self.sigmoid = config.pixels == "sigmoid"
        self.images = nn.ModuleDict({k: ImageDecoder(s, config) for k, s in spec.images.items()})
        self.vectors = nn.ModuleDict(
            {k: VectorDecoder(s.size, config) for k, s in spec.vectors.items()}
        )

    def forward(self, latent: Latent) -> dict[str, Tensor]:
        """Images (..., H, W, C) and vectors (..., n), as ``latent`` (...) has them."""
        lead, flat = latent.deter.shape[:-1], latent.flat()
        decoded = {}
        for key, image in self.images.items():
            shade = self._shade(image(flat.deter, flat.flat_stoch)).clamp(0.0, 1.0)
            decoded[key] = self.spec.images[key].unscaled(shade).unflatten(0, lead)
        part = latent.read(self.reads)
        for key, vector in self.vectors.items():
            decoded[key] = self.spec.vectors[key].unscaled(vector(part))
        return decoded

    def loss(self, latent: Latent, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per input, (...): squared error as the network sees it, summed over pixels or elements.

        A pixel that says nothing, as a kind of image may have, adds no error and no gradient.
        """
        lead, flat = latent.deter.shape[:-1], latent.flat()
        losses = {}
        for key, image in self.images.items():
            raw = image(flat.deter, flat.flat_stoch)
            frames, kind = obs[key].flatten(0, len(lead) - 1), self.spec.images[key]
            target, known = kind.scaled(frames), kind.known(frames)
            if known is not None:
                target = torch.where(known, target, self._shade(raw).detach())
            error = (
                sigmoid_error(raw, target)
                if self.sigmoid
                else (self._shade(raw) - target).square().flatten(1).sum(-1)
            )
            losses[key] = error.unflatten(0, lead)
        part = latent.read(self.reads) if self.vectors else None
        for key, vector in self.vectors.items():
            target = self.spec.vectors[key].scaled(obs[key])
            losses[key] = (vector(part) - target).square().sum(-1)
        return losses

    def _shade(self, raw: Tensor) -> Tensor:
        """(N, H, W, C) the image that raw pixels (N, H, W, C) stand for, about 0 .. 1."""
        return torch.sigmoid(raw.float()) if self.sigmoid else raw.float() + 0.5
