"""The decoder reconstructs observations from latents."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ImageSpec, Spec
from wm_core.nn import joined
from wm_core.nn.at_once import sum_at_once
from wm_core.nn.blocks import BlockLinear, Dense, Linear, OutputMLP, Style, norm_act
from wm_core.nn.conv import ConvUp, shape_up
from wm_core.nn.dists import sigmoid_error
from wm_core.nn.normalize import RunningVariance
from wm_core.world.encoder import ByInput, check_size
from wm_core.world.latent import Latent
from wm_core.world.settings import DecoderConfig, EncoderConfig, LatentSizes

VARIANCE_RATE, LEAST_VARIANCE = 0.01, 1e-3
_DARKEST = 0.01  #: a mean shade is at least so far from 0 and 1, whose logits are infinite


class ImageDecoder(nn.Module):
    """Decodes one image from a small seed image, the sum of what deter and stoch contribute.

    Deviates: the layer that stoch passes through is 4 U wide, not 2 U; so the sizes have about as
    many parameters as their names say (12m: 12.1 million, the slow critic included).  A block of
    deter draws some rows of the seed, DreamerV3's some channels of all of it: with ``micro`` on
    one store, the image's loss was 6 % lower so after 300 updates and 2 % after 400.
    """

    def __init__(
        self,
        image: ImageSpec,
        sizes: LatentSizes,
        encoder: EncoderConfig,
        config: DecoderConfig,
        units: int,
        style: Style,
    ) -> None:
        super().__init__()
        check_size(image, encoder)
        self.shape = shape_up(encoder.kind, encoder.depth, image.height, image.width)
        seed, reads = math.prod(self.shape), config.reads
        self.from_deter = _from_deter(seed, sizes) if reads != "stoch" else None
        self.from_stoch = _from_stoch(seed, sizes, units, style) if reads != "deter" else None
        plain = encoder.kind == "v1"  # Dreamer v1's has nothing between seed and convolutions
        self.norm = nn.Identity() if plain else norm_act(self.shape[0], style)
        self.up = ConvUp(encoder.kind, image.channels, encoder.depth, style.activation)

    @property
    def last_bias(self) -> Tensor:
        """(C,) bias of the raw pixels."""
        bias = self.up[-1].bias
        assert isinstance(bias, Tensor)
        return bias

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        """(N, H, W, C) raw pixels, from deter (N, D) and flat stoch (N, .)."""
        channels, rows, columns = self.shape
        parts = [] if self.from_deter is None else [self.from_deter(deter)]
        parts += [] if self.from_stoch is None else [self.from_stoch(stoch)]
        seed = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        grid = self.norm(seed.reshape(-1, rows, columns, channels))
        return self.up(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _from_deter(seed: int, sizes: LatentSizes) -> nn.Module:
    """The layer from deter (N, D) to the seed (N, seed): in blocks where deter comes in blocks."""
    if sizes.blocks is None:
        return Linear(sizes.deter, seed)
    if seed % sizes.blocks:
        raise SettingsError(
            f"the decoder starts from {seed} numbers, expected a multiple of the "
            f"{sizes.blocks} blocks; choose another --world.encoder.depth or --world.gru.blocks"
        )
    return BlockLinear(sizes.deter, seed, sizes.blocks)


def _from_stoch(seed: int, sizes: LatentSizes, units: int, style: Style) -> nn.Module:
    """The layers from flat stoch (N, .) to the seed (N, seed): two where deter has blocks."""
    if sizes.blocks is None:
        return Linear(sizes.stoch, seed)
    return nn.Sequential(Dense(sizes.stoch, 4 * units, style), Linear(4 * units, seed))


class Decoder(nn.Module):
    """Decodes every image and every vector of ``spec``, and has the loss of each.

    Args:
        spec: the inputs.
        sizes: of the latent that is read.
        encoder: kind of convolutions and sizes, mirrored here.
        config: what is read, and the output of images.
        units: width of the vectors' MLPs.
        style: norm and activation.
        measured: divide the error of a vector's element by its variance in the data, where that
            is below 1: a joint that moves by a few degrees then counts like any other.
    """

    def __init__(
        self,
        spec: Spec,
        sizes: LatentSizes,
        encoder: EncoderConfig,
        config: DecoderConfig,
        units: int,
        style: Style,
        *,
        measured: bool = False,
    ) -> None:
        super().__init__()
        self.spec, self.reads = spec, config.reads
        self.sigmoid = config.pixels == "sigmoid"
        self.images = ByInput(
            {
                key: ImageDecoder(image, sizes, encoder, config, units, style)
                for key, image in spec.images.items()
            }
        )
        inputs, layers = sizes.of(config.reads), encoder.vector_layers
        self.vectors = ByInput(
            {
                key: OutputMLP(inputs, units, layers, vector.size, style)
                for key, vector in spec.vectors.items()
            }
        )
        self.variances = ByInput(
            {
                key: RunningVariance(vector.size, rate=VARIANCE_RATE, low=LEAST_VARIANCE)
                for key, vector in spec.vectors.items()
                if measured
            }
        )

    @torch.no_grad()
    def begin_at_mean(self, obs: dict[str, Tensor]) -> None:
        """Let images begin at the mean colours of ``obs``, which would take updates to learn.

        Args:
            obs: images (..., H, W, C) as recorded; pixels that say nothing do not count.
        """
        for key, image in self.images.items():
            kind = self.spec.images[key]
            shade, known = kind.scaled(obs[key]).flatten(0, -2), kind.known(obs[key])
            counts = torch.ones_like(shade) if known is None else known.flatten(0, -2).float()
            total, said = joined.total((shade * counts).sum(0)), joined.total(counts.sum(0))
            mean = torch.where(said > 0, total / said.clamp_min(1.0), 0.5)
            mean = mean.clamp(_DARKEST, 1.0 - _DARKEST)
            assert isinstance(image, ImageDecoder)
            image.last_bias.copy_(torch.logit(mean) if self.sigmoid else mean - 0.5)

    def forward(self, latent: Latent) -> dict[str, Tensor]:
        """Images (..., H, W, C) and vectors (..., n) reconstructed from ``latent`` (...)."""
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
        for key in self.images:
            frames = obs[key].flatten(0, len(lead) - 1)
            error = self._image_error(key, flat.deter, flat.flat_stoch, frames)
            losses[key] = error.unflatten(0, lead)
        return losses | self.vector_loss(latent, obs)

    def vector_loss(self, latent: Latent, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per vector, (...): what ``loss`` says of it, from ``latent`` (...)."""
        losses = {}
        part = latent.read(self.reads) if self.vectors else None
        for key, vector in self.vectors.items():
            target = self.spec.vectors[key].scaled(obs[key])
            error = (vector(part) - target).square()
            if key in self.variances:
                error = error / self.variances[key](target.flatten(0, -2)).clamp_max(1.0)
            losses[key] = error.sum(-1)
        return losses

    def image_total(self, key: str, latent: Latent, frames: Tensor, rows: int) -> Tensor:
        """() the sum of ``loss`` over images (N, H, W, C), its gradient taken ``rows`` at a time.

        Args:
            key: of the image.
            latent: (N,).
            frames: (N, H, W, C) as recorded.
            rows: whose activations are in memory together.
        """

        def error(deter: Tensor, stoch: Tensor, frames: Tensor) -> Tensor:
            return self._image_error(key, deter, stoch, frames)

        inputs = (latent.deter, latent.flat_stoch, frames)
        return sum_at_once(error, inputs, self.images[key].parameters(), rows)

    def _image_error(self, key: str, deter: Tensor, stoch: Tensor, frames: Tensor) -> Tensor:
        """(N,) error of the image that deter (N, D) and flat stoch (N, .) decode to."""
        raw, kind = self.images[key](deter, stoch), self.spec.images[key]
        target, known = kind.scaled(frames), kind.known(frames)
        if known is not None:
            target = torch.where(known, target, self._shade(raw).detach())
        if self.sigmoid:
            return sigmoid_error(raw, target)
        return (self._shade(raw) - target).square().flatten(1).sum(-1)

    def _shade(self, raw: Tensor) -> Tensor:
        """(N, H, W, C) the image that raw pixels (N, H, W, C) stand for, about 0 .. 1."""
        return torch.sigmoid(raw.float()) if self.sigmoid else raw.float() + 0.5
