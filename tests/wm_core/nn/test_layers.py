"""Layers against plain torch, and their initial weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wm_core.nn.blocks import (
    ACTIVATIONS,
    MLP,
    BlockLinear,
    Linear,
    NormRms,
    Style,
    initialize,
    norm_act,
)
from wm_core.nn.conv import ConvDown, ConvUp, Patches, Unpatch, shape_down, shape_up
from wm_core.nn.gru import BlockGRU


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_equal_generators_give_equal_weights_and_leave_torchs_own_alone():
    before = torch.get_rng_state()
    nets = [MLP(7, 16, 2), MLP(7, 16, 2)]
    for net in nets:
        initialize(net, torch.Generator().manual_seed(3))
    pairs = zip(nets[0].parameters(), nets[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(before, torch.get_rng_state())


def test_a_linear_layer_keeps_the_variance_of_its_input(generator):
    layer = Linear(512, 256)
    initialize(layer, generator)
    y = layer(torch.randn(256, 512, generator=generator))
    assert y.std().item() == pytest.approx(1.0, abs=0.05)


def test_scale_zero_makes_a_layer_return_zero(generator):
    layer = Linear(8, 4, scale=0.0)
    initialize(layer, generator)
    assert layer(torch.randn(3, 8, generator=generator)).abs().max() == 0


def test_norm_and_its_gradient_are_those_of_autograd(generator):
    norm = NormRms(6)
    norm.weight.data.uniform_(0.5, 2.0, generator=generator)
    x = torch.randn(4, 3, 6, generator=generator, requires_grad=True)
    plain = F.silu(F.rms_norm(x, (6,), norm.weight, eps=1e-4))
    fused = norm(x)
    torch.testing.assert_close(fused, plain)
    slope = torch.randn(4, 3, 6, generator=generator)
    expected = torch.autograd.grad((plain * slope).sum(), [x, norm.weight])
    got = torch.autograd.grad((fused * slope).sum(), [x, norm.weight])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(norm(x), plain.detach())


def test_blocks_see_only_their_own_slice(generator):
    layer = BlockLinear(6, 9, 3)
    initialize(layer, generator)
    x = torch.randn(1, 6, generator=generator, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, 3:6].sum(), x)
    assert (gradient[0] != 0).tolist() == [False, False, True, True, False, False]
    dense = torch.block_diag(*layer.weight)
    torch.testing.assert_close(layer(x), x @ dense)


def test_block_layers_are_drawn_as_if_each_output_read_every_input(generator):
    """As in DreamerV3's code: 8 blocks of 64 inputs count as 512, not as 64."""
    layer = BlockLinear(512, 512, 8)
    gru = BlockGRU(512, 8, shared=192)
    for module in (layer, gru):
        initialize(module, generator)
    assert layer.weight.std().item() == pytest.approx(512**-0.5, rel=0.03)
    assert gru.gates.weight.std().item() == pytest.approx(512**-0.5, rel=0.03)
    # every block reads 64 numbers of deter and all 192 shared ones
    assert gru.fan_in == 8 * (64 + 192)
    assert gru.inner.weight.std().item() == pytest.approx(2048**-0.5, rel=0.03)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_without_a_norm_layers_make_up_for_what_their_activation_takes(activation, generator):
    x = torch.randn(256, 512, generator=generator)
    shrunk = []
    for norm in ("none", "layer"):
        layers = MLP(512, 512, 4, Style(norm, activation))
        initialize(layers, generator)
        shrunk.append(layers[0].linear.weight.std().item())
        if norm == "none":
            assert 0.3 < layers(x).square().mean().sqrt() < 1.3
    assert shrunk[0] / shrunk[1] == pytest.approx(2**0.5, rel=0.02)


def test_blocks_must_divide():
    with pytest.raises(ValueError, match="3 blocks"):
        BlockLinear(7, 9, 3)


def test_gru_with_a_closed_update_gate_remembers(generator):
    gru = BlockGRU(8, 2, 4)
    initialize(gru, generator)
    gates = gru.gates.bias.data.view(2, 3, 4)
    gates[:, 2] = -1e3
    deter = torch.randn(3, 8, generator=generator)
    torch.testing.assert_close(gru(deter, torch.randn(3, 8, generator=generator)), deter)
    gates[:, 2] = 1e3
    assert gru(deter, torch.zeros(3, 8)).abs().max() <= 1


@pytest.mark.parametrize("kind", ["k5pool", "k5s2", "k4s2", "patch"])
def test_convolutions_go_down_and_up_again(kind, generator):
    down, up = ConvDown(kind, 3, 4), ConvUp(kind, 3, 4)
    initialize(down, generator)
    initialize(up, generator)
    image = torch.rand(2, 3, 32, 48, generator=generator)
    small = down(image)
    assert small.shape[2:] == (2, 3)
    assert small.shape[1:] == shape_down(kind, 4, 32, 48) == shape_up(kind, 4, 32, 48)
    assert up(small).shape == image.shape


def test_patches_are_convolutions_whose_stride_is_their_kernel(generator):
    patches = Patches(3, 5, 4)
    initialize(patches, generator)
    image = torch.rand(2, 3, 8, 12, generator=generator)
    kernel = patches.weight.unflatten(1, (4, 4, 3)).permute(0, 3, 1, 2)
    torch.testing.assert_close(patches(image), F.conv2d(image, kernel, patches.bias, stride=4))


def test_unpatch_inverts_patches(generator):
    image = torch.rand(2, 3, 8, 12, generator=generator)
    patches, back = Patches(3, 48, 4), Unpatch(48, 3, 4)
    for layer in (patches, back):
        layer.weight.data.copy_(torch.eye(48))
    torch.testing.assert_close(back(patches(image)), image)


def test_a_strided_encoder_has_dreamer_v3_s_weights_and_a_quarter_of_its_products():
    pooled, strided = ConvDown("k5pool", 3, 4), ConvDown("k5s2", 3, 4)
    assert [p.shape for p in pooled.parameters()] == [p.shape for p in strided.parameters()]

    def products(down):
        x, total = torch.zeros(1, 3, 64, 64), 0
        for layer in down:
            x = layer(x)
            if hasattr(layer, "stride") and hasattr(layer, "fan_in"):
                total += layer.fan_in * x.numel()
        return total

    assert products(strided) * 4 == products(pooled)


def test_dreamer_v1_s_convolutions_end_at_two_by_two_and_begin_at_one_pixel(generator):
    down, up = ConvDown("v1", 3, 4), ConvUp("v1", 3, 4)
    initialize(down, generator)
    initialize(up, generator)
    small = down(torch.rand(2, 3, 64, 64, generator=generator))
    assert small.shape[1:] == shape_down("v1", 4, 64, 64) == (32, 2, 2)
    seed = torch.randn(2, *shape_up("v1", 4, 64, 64), generator=generator)
    assert seed.shape[1:] == (128, 1, 1)
    image = up(seed)
    assert image.shape == (2, 3, 64, 64)
    assert image.min() < 0  # nothing bounds the pixels
    assert [layer.weight.shape[-1] for layer in up if hasattr(layer, "weight")] == [5, 5, 6, 6]


@pytest.mark.parametrize("activation", ["relu", "elu", "silu"])
def test_dreamer_v1_s_convolutions_have_a_choice_of_activation(activation, generator):
    down = ConvDown("v1", 3, 2, activation)
    initialize(down, generator)
    image = torch.rand(2, 3, 64, 64, generator=generator)
    x = image
    for layer in down:
        if hasattr(layer, "weight"):
            x = ACTIVATIONS[activation](F.conv2d(x, layer.weight, layer.bias, stride=2))
    torch.testing.assert_close(down(image), x)


@pytest.mark.parametrize("activation", ["silu", "elu", "relu", "tanh"])
@pytest.mark.parametrize("norm", ["rms", "layer", "none"])
def test_a_style_is_its_norm_and_then_its_activation(norm, activation, generator):
    layer = norm_act(6, Style(norm, activation))
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=generator))
    x = torch.randn(4, 3, 6, generator=generator)
    expected = x
    if norm == "rms":
        expected = F.rms_norm(x, (6,), layer.weight, eps=1e-4)
    elif norm == "layer":
        expected = F.layer_norm(x, (6,), layer.norm.weight, layer.norm.bias, eps=1e-3)
    assert len(list(layer.parameters())) == {"rms": 1, "layer": 2, "none": 0}[norm]
    plain = {"silu": F.silu, "elu": F.elu, "relu": F.relu, "tanh": torch.tanh}[activation]
    torch.testing.assert_close(layer(x), plain(expected))
    assert layer(x.to(torch.bfloat16)).dtype == torch.float32


def test_images_are_independent_of_their_neighbours_in_the_batch(generator):
    down = ConvDown("k5pool", 3, 4)
    initialize(down, generator)
    image = torch.rand(3, 3, 16, 16, generator=generator)
    torch.testing.assert_close(down(image)[1:2], down(image[1:2]))
