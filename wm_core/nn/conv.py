"""Convolution stacks between images and flat vectors: V3's pooled ones and strided ones.

Both halve the image four times and end at (H / 16, W / 16).  Images enter as (N, C, H, W) views
of (N, H, W, C) memory, which is torch's channels_last and what its CPU kernels like best.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from wm_core.nn.blocks import Filled, NormSilu

Kind = Literal["k5pool", "k4s2"]
LEVELS = 4
_MULTIPLES: dict[str, tuple[int, ...]] = {"k5pool": (2, 3, 4, 4), "k4s2": (1, 2, 4, 8)}


def channels(kind: Kind, depth: int) -> tuple[int, ...]:
    """Channels after each of the four levels."""
    return tuple(depth * m for m in _MULTIPLES[kind])


class Conv(Filled):
    """(N, I, H, W) to (N, O, H / stride, W / stride): a padded convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        shape = (outputs, inputs, kernel, kernel)
        super().__init__(shape, fan_in=inputs * kernel * kernel, bias=outputs, scale=1.0)
        self.stride, self.padding = stride, (kernel - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class ConvTranspose(Filled):
    """(N, I, H, W) to (N, O, 2 H, 2 W): a transposed convolution, kernel 4, stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        # Each output pixel is reached by a quarter of the kernel.
        super().__init__((inputs, outputs, 4, 4), fan_in=inputs * 4, bias=outputs, scale=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, 2, 1)


class ChannelNorm(NormSilu):
    """(N, C, H, W) divided by its root mean square over C, times a learned scale, then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvDown(nn.Sequential):
    """(N, C, H, W) image to (N, depth * m, H / 16, W / 16).

    ``k5pool`` is DreamerV3's: kernel 5, 2x2 max-pool, RMSNorm over channels, SiLU.  ``k4s2``
    follows Dreamer v1: kernel 4, stride 2, ReLU, no norm; a fifth of the cost.
    """

    def __init__(self, kind: Kind, image_channels: int, depth: int) -> None:
        layers: list[nn.Module] = []
        before = image_channels
        for after in channels(kind, depth):
            if kind == "k5pool":
                layers += [Conv(before, after, 5), nn.MaxPool2d(2), ChannelNorm(after)]
            else:
                layers += [Conv(before, after, 4, 2), nn.ReLU(inplace=True)]
            before = after
        super().__init__(*layers)


class ConvUp(nn.Sequential):
    """(N, depth * m, H / 16, W / 16) to (N, C, H, W): the mirror image of ``ConvDown``."""

    def __init__(self, kind: Kind, image_channels: int, depth: int) -> None:
        layers: list[nn.Module] = []
        *rest, before = channels(kind, depth)
        for level, after in enumerate([*reversed(rest), image_channels]):
            if kind == "k5pool":
                layers += [nn.UpsamplingNearest2d(scale_factor=2), Conv(before, after, 5)]
                layers += [ChannelNorm(after)] if level < LEVELS - 1 else []
            else:
                layers += [ConvTranspose(before, after)]
                layers += [nn.ReLU(inplace=True)] if level < LEVELS - 1 else []
            before = after
        super().__init__(*layers)
