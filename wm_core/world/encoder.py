"""Observation to embedding: a CNN per image and an MLP per vector, concatenated."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ImageSpec, Spec
from wm_core.nn.blocks import MLP, Style
from wm_core.nn.conv import LEVELS, V1_SIDE, ConvDown, shape_down
from wm_core.nn.dists import symlog
from wm_core.world.settings import WorldConfig


def check_size(image: ImageSpec, config: WorldConfig) -> None:
    """Raise ``SettingsError`` for an image that the convolutions of ``config`` cannot take."""
    step = 2**LEVELS
    if config.encoder == "v1" and (image.height, image.width) != (V1_SIDE, V1_SIDE):
        raise SettingsError(
            f"encoder v1 takes images of {V1_SIDE}x{V1_SIDE}, got {image.width}x{image.height}; "
            "choose --world.encoder k4s2"
        )
    if image.height % step or image.width % step:
        raise SettingsError(
            f"image sides must be multiples of {step}, got {image.width}x{image.height}; "
            "choose such a size for the policy's camera"
        )


def to_float(image: Tensor) -> Tensor:
    """(..., H, W, C) uint8 pixels as floats in [0, 1]."""
    return image.float() * (1.0 / 255.0)


class Encoder(nn.Module):
    """Every camera and every vector of ``spec`` in one embedding (..., E).

    Images are scaled to [-0.5, 0.5], vectors by symlog.
    """

    def __init__(self, spec: Spec, config: WorldConfig) -> None:
        super().__init__()
        self.images = nn.ModuleDict()
        self.vectors = nn.ModuleDict()
        self.size = 0  #: E
        for key, image in spec.images.items():
            check_size(image, config)
            kind, depth = config.encoder, config.depth
            self.images[key] = ConvDown(kind, image.channels, depth, config.activation)
            self.size += math.prod(shape_down(kind, depth, image.height, image.width))
        style = Style(config.norm, config.activation)
        for key, vector in spec.vectors.items():
            self.vectors[key] = MLP(vector.size, config.units, config.vector_layers, style)
            self.size += config.units

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """(..., E) embedding of images (..., H, W, C) uint8 and vectors (..., n)."""
        parts = []
        for key, down in self.images.items():
            image = obs[key]
            # (N, C, H, W) view of (N, H, W, C) memory
            flat = to_float(image.reshape(-1, *image.shape[-3:])).permute(0, 3, 1, 2) - 0.5
            parts.append(down(flat).flatten(1).reshape(*image.shape[:-3], -1))
        parts += [layers(symlog(obs[key])) for key, layers in self.vectors.items()]
        return torch.cat([p.float() for p in parts], -1)
