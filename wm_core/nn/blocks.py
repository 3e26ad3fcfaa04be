"""Linear layers, norms and MLPs whose weights are drawn from a generator that is passed in.

Layers start as zeros; ``initialize`` fills a whole tree of them.  Torch's own layers draw their
weights where they are constructed: within ``drawing_from``, a generator decides those too.
Nothing here changes torch's global random state.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-4
LAYER_NORM_EPS = 1e-3

Norm = Literal["rms", "layer", "none"]
Activation = Literal["silu", "elu", "relu", "tanh", "gelu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "elu": F.elu,
    "relu": F.relu,
    "tanh": torch.tanh,
    "gelu": F.gelu,
}
#: factor on initial weights before an activation without a norm, that a signal keeps its size
GAINS: dict[Activation, float] = {
    "relu": 2.0**0.5, "silu": 2.0**0.5, "gelu": 2.0**0.5, "elu": 1.0, "tanh": 1.0,
}  # fmt: skip
_TRUNCATED_STD = 0.87962566103423978  # of a unit normal cut at two standard deviations


class Filled(nn.Module):
    """A layer with a ``weight`` that ``initialize`` draws and a ``bias`` that starts at zero.

    Args:
        shape: of the weight.
        fan_in: inputs that are summed into one output, over all layers that add up to it.
        bias: its length; 0 for none.
        scale: factor on the standard deviation; 0 makes the layer return its bias.
    """

    def __init__(
        self, shape: tuple[int, ...], *, fan_in: int, bias: int = 0, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.fan_in, self.scale = fan_in, scale
        self.weight = nn.Parameter(torch.zeros(shape))
        self.bias = nn.Parameter(torch.zeros(bias)) if bias else None

    def fill(self, generator: torch.Generator) -> None:
        """Draw the weight from a truncated normal with variance ``scale``^2 / ``fan_in``."""
        std = self.scale / math.sqrt(self.fan_in) / _TRUNCATED_STD
        if std > 0:
            nn.init.trunc_normal_(self.weight, 0.0, std, -2 * std, 2 * std, generator=generator)


def forget(memory: Tensor, is_first: Tensor) -> Tensor:
    """Give ``memory`` (N, ...) with zeros where ``is_first`` (N,) bool is set.

    Whatever stood there is gone: a product with zero would keep NaN and infinity for ever.
    ``is_first`` may have further leading axes, as far as ``memory`` has them too.
    """
    at = is_first.reshape(*is_first.shape, *[1] * (memory.ndim - is_first.ndim))
    return torch.where(at, memory.new_zeros(()), memory)


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Fill every layer in ``module`` that can, in order; equal generators give equal weights."""
    for layer in module.modules():
        fill = getattr(layer, "fill", None)
        if fill is not None:
            fill(generator)


def products_dtype(device: torch.device) -> torch.dtype | None:
    """Type to which layers on ``device`` cast what they multiply; None: they leave it as it is."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else None


@contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Let ``generator`` decide what torch's global CPU generator draws inside; both stay as is."""
    state = hashlib.sha256(generator.get_state().numpy().tobytes()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(state[:7], "little"))
        yield


class Linear(Filled):
    """Maps (..., I) to (..., O) affinely.

    ``fan_in`` is given where the layer is one summand of a larger map that was split so that
    parts of it can be computed outside a loop over time.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        scale: float = 1.0,
        fan_in: int | None = None,
    ) -> None:
        super().__init__(
            (outputs, inputs), fan_in=fan_in or inputs, bias=outputs * bias, scale=scale
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class BlockLinear(Filled):
    """Maps (N, I) to (N, O) in G independent blocks; block g reads slice g of the input.

    Weights are drawn as if every output read all I inputs, as in DreamerV3's code: they are
    smaller than those of a linear layer over one slice by the root of G.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int,
        *,
        bias: bool = True,
        fan_in: int | None = None,
    ) -> None:
        if inputs % blocks or outputs % blocks:
            raise ValueError(f"{inputs} -> {outputs} does not divide into {blocks} blocks")
        super().__init__(
            (blocks, inputs // blocks, outputs // blocks),
            fan_in=fan_in or inputs,
            bias=outputs * bias,
            scale=1.0,
        )

    def forward(self, x: Tensor) -> Tensor:
        blocks, inputs, _ = self.weight.shape
        # (G, N, I / G)
        parts = x.reshape(-1, blocks, inputs).transpose(0, 1)
        y = torch.bmm(parts, self.weight).transpose(0, 1).flatten(1)
        return y if self.bias is None else y + self.bias


@functools.cache
def _norm_eps(device: torch.device) -> Tensor:
    return torch.full((), NORM_EPS, device=device)


def unit_rms(x: Tensor) -> tuple[Tensor, Tensor]:
    """(..., C) ``x`` of root mean square 1 over C, and (..., 1) the inverse it was scaled by.

    In few operations: a number written in Python costs a tensor of its own.
    """
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = torch.addcmul(_norm_eps(x.device), size, size, value=1.0 / x.shape[-1]).rsqrt_()
    return x * inverse, inverse


class _NormSilu(torch.autograd.Function):
    """Computes SiLU of an RMSNorm with a hand-written gradient, twice as fast on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        unit, inverse = unit_rms(x)
        ctx.save_for_backward(unit, inverse, weight)
        return F.silu(unit * weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        unit, inverse, weight = ctx.saved_tensors
        inner = torch.ops.aten.silu_backward(gradients[0], unit * weight)
        along = inner * unit
        slope = (along @ weight).unsqueeze(-1) / unit.shape[-1]
        x = torch.addcmul(inner * weight, unit, slope, value=-1.0).mul_(inverse)
        return x, along.flatten(0, -2).sum(0)


class NormRms(nn.Module):
    """Divides (..., C) by its root mean square over C, scales it, then applies an activation.

    It computes in float32.  SiLU takes a path of few operations, with a hand-written gradient, and
    only the plain path is exported; tests hold the two together.
    """

    def __init__(self, channels: int, activation: Activation = "silu") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.activation is F.silu and not torch.compiler.is_compiling():
            if torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad):
                return _NormSilu.apply(x, self.weight)  # type: ignore[no-untyped-call]
            return F.silu(unit_rms(x)[0].mul_(self.weight), inplace=True)
        # a quotient, not a product with an inverse root: the form that runtimes fuse to one node
        unit = x / torch.sqrt(x.square().mean(-1, keepdim=True) + NORM_EPS)
        return self.activation(unit * self.weight)


class Style(NamedTuple):
    """Norm and activation after a linear layer."""

    norm: Norm = "rms"
    activation: Activation = "silu"


STYLE = Style()  #: DreamerV3's


class NormAct(nn.Module):
    """Applies LayerNorm or nothing to (..., C) in float32, then an activation."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS) if style.norm == "layer" else None
        self.activation = ACTIVATIONS[style.activation]

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        return self.activation(x if self.norm is None else self.norm(x))


def norm_act(channels: int, style: Style) -> nn.Module:
    """Make the norm and activation of ``style`` after a linear layer of (..., channels)."""
    if style.norm == "rms":
        return NormRms(channels, style.activation)
    return NormAct(channels, style)


class Dense(nn.Module):
    """Maps (..., I) to (..., U) by a linear layer, a norm and an activation.

    Without a norm, weights are drawn larger by what the activation takes away.

    Source: of the factors: He et al. 2015, arXiv:1502.01852 (ReLU); TWM (code): SiLU as ReLU.
    """

    def __init__(self, inputs: int, units: int, style: Style = STYLE) -> None:
        super().__init__()
        gain = GAINS[style.activation] if style.norm == "none" else 1.0
        self.linear = Linear(inputs, units, scale=gain)
        self.norm = norm_act(units, style)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class MLP(nn.Sequential):
    """Maps (..., I) to (..., U) by ``layers`` dense layers of ``units``."""

    def __init__(self, inputs: int, units: int, layers: int, style: Style = STYLE) -> None:
        super().__init__(
            *(Dense(inputs if i == 0 else units, units, style) for i in range(layers))
        )


class OutputMLP(nn.Module):
    """Maps (..., I) to (..., O) float32 by dense layers and a linear one."""

    def __init__(
        self, inputs: int, units: int, layers: int, outputs: int, style: Style, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.layers = MLP(inputs, units, layers, style)
        self.out = Linear(units, outputs, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layers(x)).float()
