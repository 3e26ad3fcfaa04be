"""Convolution stacks between images and vectors: DreamerV3's, strided, Dreamer v1's, and patches.

All but Dreamer v1's end at (H / 16, W / 16); that one has no padding and takes 64 x 64 only.
Images enter as (N, C, H, W) views of (N, H, W, C) memory (channels_last), for which torch's CPU
kernels are fastest.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from wm_core.nn.blocks import ACTIVATIONS, GAINS, Activation, Filled, NormRms
from wm_core.nn.strided import convolve, convolve_transposed

ConvKind = Literal["k5pool", "k5s2", "k4s2", "v1", "patch"]
DOWNSAMPLING = 16  #: pixels of a side for each position of the smallest grid; not of ``v1``
_PATCHES = (4, 2, 2)  #: sides of the patches of each level
V1_SIDE = 64  #: the only height and width that Dreamer v1's convolutions take, pixels
_PIXEL_GAIN = 3.0  #: of the first layer's weights: pixels in [-0.5, 0.5] have an RMS of a third
_MULTIPLES = {
    "k5pool": (2, 3, 4, 4), "k5s2": (2, 3, 4, 4), "k4s2": (1, 2, 4, 8), "v1": (1, 2, 4, 8),
    "patch": (2, 4, 8),
}  # fmt: skip


def channels(kind: ConvKind, depth: int) -> tuple[int, ...]:
    """Compute the channels after each level."""
    return tuple(depth * m for m in _MULTIPLES[kind])


def shape_down(kind: ConvKind, depth: int, height: int, width: int) -> tuple[int, int, int]:
    """Compute (C, H', W') after ``ConvDown``, for an image of height and width pixels."""
    if kind == "v1":
        return channels(kind, depth)[-1], 2, 2
    return channels(kind, depth)[-1], height // DOWNSAMPLING, width // DOWNSAMPLING


def shape_up(kind: ConvKind, depth: int, height: int, width: int) -> tuple[int, int, int]:
    """Compute (C, H', W') before ``ConvUp``, for an image of height and width pixels."""
    return (32 * depth, 1, 1) if kind == "v1" else shape_down(kind, depth, height, width)


class Conv(Filled):
    """Convolves (N, I, H, W) to (N, O, H / stride, W / stride), padded by default."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        *,
        padded: bool = True,
        scale: float = 1.0,
    ) -> None:
        shape = (outputs, inputs, kernel, kernel)
        super().__init__(shape, fan_in=inputs * kernel * kernel, bias=outputs, scale=scale)
        self.stride, self.padding = stride, (kernel - 1) // 2 if padded else 0

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        if self.stride == 2:
            return convolve(x, self.weight, self.bias, self.padding)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class ConvTranspose(Filled):
    """Convolves (N, I, H, W) to (N, O, 2 H, 2 W), transposed with stride 2 and kernel 4."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 4, padding: int = 1) -> None:
        # Each output pixel is reached by about a quarter of the kernel.
        shape, fan_in = (inputs, outputs, kernel, kernel), max(1, inputs * kernel**2 // 4)
        super().__init__(shape, fan_in=fan_in, bias=outputs, scale=1.0)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return convolve_transposed(x, self.weight, self.bias, self.padding)


class Patches(Filled):
    """Maps each patch of (N, I, H, W) to one position of (N, O, H / side, W / side).

    It is a convolution whose stride is its kernel, so it is one matrix product.
    """

    def __init__(self, inputs: int, outputs: int, side: int, *, scale: float = 1.0) -> None:
        fan_in = inputs * side * side
        super().__init__((outputs, fan_in), fan_in=fan_in, bias=outputs, scale=scale)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        side, x = self.side, x.permute(0, 2, 3, 1)
        rows, columns, channels = x.shape[1] // side, x.shape[2] // side, x.shape[3]
        strips = x.reshape(-1, rows, side, columns, side * channels).transpose(2, 3)
        mapped = F.linear(strips.reshape(-1, side * side * channels), self.weight, self.bias)
        return mapped.reshape(-1, rows, columns, len(self.weight)).permute(0, 3, 1, 2)


class Unpatch(Filled):
    """Maps each position of (N, I, H, W) to a patch of (N, O, H * side, W * side)."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__((side * side * outputs, inputs), fan_in=inputs, bias=outputs, scale=1.0)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        side, rows, columns = self.side, x.shape[2], x.shape[3]
        patches = F.linear(x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]), self.weight)
        strips = patches.reshape(-1, rows, columns, side, len(self.weight) // side).transpose(2, 3)
        image = strips.reshape(-1, rows * side, columns * side, len(self.bias))
        return (image + self.bias).permute(0, 3, 1, 2)


class Act(nn.Module):
    """An activation as a module, of any shape (...)."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x)


class ChannelNorm(NormRms):
    """Applies RMSNorm over C to (N, C, H, W), then SiLU."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvDown(nn.Sequential):
    """Encodes images (N, C, H, W) to (N, depth * m, H', W'), see ``shape_down``.

    ``k5pool`` is DreamerV3's: kernel 5, 2x2 max-pool, RMSNorm over channels, SiLU.  ``k5s2`` has a
    stride of 2 in place of the pool, a quarter of the products (its code's option ``strided``).
    ``k4s2`` and ``v1`` have kernel 4, stride 2 and no norm, a tenth of them; ``v1`` is Dreamer
    v1's and its successors', without padding and with a choice of activation.  ``patch`` maps
    patches of 4x4 pixels, and then twice of 2x2 positions, that do not overlap: half of the time
    of ``k4s2`` on a CPU.

    Deviates: without a norm nothing restores a signal that pixels and activations made small, and
    two frames that differ in a few pixels gave posteriors 1e-5 to 1e-4 nats apart.  Where there is
    no norm, weights are drawn larger by what is lost.
    """

    def __init__(
        self, kind: ConvKind, image_channels: int, depth: int, activation: Activation = "relu"
    ) -> None:
        layers: list[nn.Module] = []
        before, scale = image_channels, _PIXEL_GAIN
        for level, after in enumerate(channels(kind, depth)):
            if kind == "k5pool":
                layers += [Conv(before, after, 5), nn.MaxPool2d(2), ChannelNorm(after)]
            elif kind == "k5s2":
                layers += [Conv(before, after, 5, 2), ChannelNorm(after)]
            elif kind == "k4s2":
                scale *= GAINS["relu"]
                layers += [Conv(before, after, 4, 2, scale=scale), nn.ReLU(inplace=True)]
            elif kind == "patch":
                scale *= GAINS["relu"]
                layers += [Patches(before, after, _PATCHES[level], scale=scale), nn.ReLU()]
            else:
                scale *= GAINS[activation]
                layers += [
                    Conv(before, after, 4, 2, padded=False, scale=scale), Act(activation),
                ]  # fmt: skip
            before, scale = after, 1.0
        super().__init__(*layers)


class ConvUp(nn.Sequential):
    """Decodes (N, C', H', W'), see ``shape_up``, to images (N, C, H, W).

    It mirrors ``ConvDown``, except ``v1``: kernels 5, 5, 6, 6 from a single pixel.
    """

    def __init__(
        self, kind: ConvKind, image_channels: int, depth: int, activation: Activation = "relu"
    ) -> None:
        layers: list[nn.Module] = []
        *rest, before = (
            (4 * depth, 2 * depth, depth, 32 * depth) if kind == "v1" else channels(kind, depth)
        )
        mirrored = rest if kind == "v1" else [*reversed(rest)]
        for level, after in enumerate([*mirrored, image_channels]):
            inner = level < len(mirrored)
            if kind in ("k5pool", "k5s2"):
                layers += [nn.UpsamplingNearest2d(scale_factor=2), Conv(before, after, 5)]
                layers += [ChannelNorm(after)] if inner else []
            elif kind == "k4s2":
                layers += [ConvTranspose(before, after)]
                layers += [nn.ReLU(inplace=True)] if inner else []
            elif kind == "patch":
                layers += [Unpatch(before, after, _PATCHES[::-1][level])]
                layers += [nn.ReLU()] if inner else []
            else:
                layers += [ConvTranspose(before, after, (5, 5, 6, 6)[level], 0)]
                layers += [Act(activation)] if inner else []
            before = after
        super().__init__(*layers)
