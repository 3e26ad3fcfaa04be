"""The encoder embeds an observation: a CNN per image and an MLP per vector, concatenated."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView

import torch
from torch import Tensor, nn

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ImageSpec, Spec
from wm_core.nn.blocks import MLP, Style
from wm_core.nn.conv import DOWNSAMPLING, V1_SIDE, ConvDown, shape_down
from wm_core.world.settings import EncoderConfig


def check_size(image: ImageSpec, config: EncoderConfig) -> None:
    """Raise ``SettingsError`` for an image that the convolutions of ``config`` cannot take."""
    if config.kind == "v1" and (image.height, image.width) != (V1_SIDE, V1_SIDE):
        raise SettingsError(
            f"encoder v1 takes images of {V1_SIDE}x{V1_SIDE}, got {image.width}x{image.height}; "
            "choose --world.encoder.kind k4s2"
        )
    if image.height % DOWNSAMPLING or image.width % DOWNSAMPLING:
        raise SettingsError(
            f"image sides must be multiples of {DOWNSAMPLING}, got {image.width}x{image.height}; "
            "choose such a size for the policy's camera"
        )


class ByInput(nn.ModuleDict):
    """Holds a module for each input, whatever the input is called.

    torch refuses the names that a ``ModuleDict`` has itself, such as ``type`` or ``items``: under
    these a module is kept with a 0 in front, which no input begins with.  All other modules are
    kept under their input's name, which is part of the names of weights in checkpoints.
    """

    def __getitem__(self, key: str) -> nn.Module:
        return super().__getitem__(_kept(key))

    def __setitem__(self, key: str, module: nn.Module) -> None:
        if not key or "." in key:
            raise SettingsError(
                f"input {key!r}: expected a name of letters, digits and underscores; rename it"
            )
        super().__setitem__(_kept(key), module)

    def __contains__(self, key: str) -> bool:
        return super().__contains__(_kept(key))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> KeysView[str]:
        return dict(self.items()).keys()

    def items(self) -> ItemsView[str, nn.Module]:
        return {_called(name): module for name, module in self._modules.items()}.items()


_OF_TORCH = frozenset(dir(nn.ModuleDict()))


def _kept(key: str) -> str:
    return f"0{key}" if key in _OF_TORCH else key


def _called(name: str) -> str:
    return name[1:] if name[0] == "0" and name[1:] in _OF_TORCH else name


class Encoder(nn.Module):
    """Embeds every image and every vector of ``spec``; their embeddings are concatenated.

    Each kind of sensor scales its observations; images then lie in [-0.5, 0.5].

    Args:
        spec: the inputs.
        config: kind of convolutions and sizes.
        units: width of the vectors' MLPs.
        style: norm and activation.
    """

    def __init__(self, spec: Spec, config: EncoderConfig, units: int, style: Style) -> None:
        super().__init__()
        self.spec = spec
        self.images = ByInput()
        self.vectors = ByInput()
        self.size = 0  #: E
        for key, image in spec.images.items():
            check_size(image, config)
            kind, depth = config.kind, config.depth
            self.images[key] = ConvDown(kind, image.channels, depth, style.activation)
            self.size += math.prod(shape_down(kind, depth, image.height, image.width))
        for key, vector in spec.vectors.items():
            self.vectors[key] = MLP(vector.size, units, config.vector_layers, style)
            self.size += units

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        """(..., E) embedding of images (..., H, W, C) and vectors (..., n).

        Raises:
            SpecMismatch: for an image whose pixels are floats already.
        """
        parts = []
        for key, down in self.images.items():
            image = obs[key]
            # (N, C, H, W) view of (N, H, W, C) memory
            scaled = self.spec.images[key].scaled(image.reshape(-1, *image.shape[-3:]))
            parts.append(
                down(scaled.permute(0, 3, 1, 2) - 0.5).flatten(1).reshape(*image.shape[:-3], -1)
            )
        for key, layers in self.vectors.items():
            parts.append(layers(self.spec.vectors[key].scaled(obs[key])))
        return torch.cat([p.float() for p in parts], -1)
