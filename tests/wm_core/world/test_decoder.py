"""An image is decoded from the part of the latent that is read."""

from __future__ import annotations

import pytest
import torch

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.nn.blocks import Style, initialize
from wm_core.presets.micro import merged
from wm_core.world.decoder import Decoder, ImageDecoder
from wm_core.world.latent import Latent
from wm_core.world.settings import WorldConfig


def changed(config, **changes):
    return WorldConfig(**merged(config.model_dump(), changes))


def image_decoder(image, config):
    style = Style(config.norm, config.activation)
    return ImageDecoder(image, config.sizes, config.encoder, config.decoder, config.units, style)


def test_a_seed_that_its_blocks_cannot_share_is_refused_with_advice(config):
    odd = changed(config, gru={"blocks": 32, "deter": 32})
    with pytest.raises(SettingsError, match="16 numbers, expected a multiple of the 32 blocks"):
        image_decoder(ImageSpec(height=16, width=16), odd)


@pytest.fixture
def image():
    return ImageSpec(height=16, width=16)


def parts(config, n=3):
    generator = torch.Generator().manual_seed(1)
    deter = torch.randn(n, config.sizes.deter, generator=generator)
    return deter, torch.randn(n, config.sizes.stoch, generator=generator)


def made(image, config):
    decoder = image_decoder(image, config)
    initialize(decoder, torch.Generator().manual_seed(2))
    return decoder


def whole(image, config):
    """A decoder of one image, and (3,) latents that it draws."""
    spec = Spec(images={"image": image}, action=ActionSpec(low=(-1,), high=(1,)))
    decoder = Decoder(spec, config.sizes, config.encoder, config.decoder, config.units, Style())
    initialize(decoder, torch.Generator().manual_seed(2))
    deter, stoch = parts(config)
    return decoder, Latent(
        deter, stoch.unflatten(1, (config.categorical.groups, config.categorical.classes))
    )


@pytest.mark.parametrize("pixels", ["sigmoid", "linear"])
def test_pixels_are_in_range_and_their_error_is_squared_and_summed(pixels, config, image):
    decoder, latent = whole(image, changed(config, decoder={"pixels": pixels}))
    target = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    with torch.no_grad():
        raw = decoder.images["image"](latent.deter, latent.flat_stoch)
        shade = raw.sigmoid() if pixels == "sigmoid" else raw + 0.5
        expected = (shade - target / 255).square().sum((1, 2, 3))
        torch.testing.assert_close(decoder.loss(latent, {"image": target})["image"], expected)
        shown = decoder(latent)["image"]
    assert shown.dtype == torch.uint8
    off = (shown.float() - shade.clamp(0, 1) * 255).abs().max()
    assert off <= 0.5 + 1e-3


def test_linear_pixels_beyond_the_range_are_shown_at_its_end(config, image):
    decoder, latent = whole(image, changed(config, decoder={"pixels": "linear"}))
    for bias, shade in ((9.0, 255), (-9.0, 0)):
        decoder.images["image"].up[-1].bias.data.fill_(bias)
        assert (decoder(latent)["image"] == shade).all()


@pytest.mark.parametrize("reads", ["feat", "deter", "stoch"])
@pytest.mark.parametrize("cell", ["block", "plain"])
def test_an_image_is_drawn_from_the_part_that_is_read(reads, cell, config, image):
    config = changed(config, decoder={"reads": reads}, gru={"cell": cell})
    decoder, given = made(image, config), [p.requires_grad_() for p in parts(config)]
    slopes = torch.autograd.grad(decoder(*given).square().sum(), given, allow_unused=True)
    assert [s is not None and bool(s.any()) for s in slopes] == [
        reads != "stoch",
        reads != "deter",
    ]


def test_dreamer_v1_s_decoder_makes_an_image_of_sixty_four(config):
    config = changed(config, encoder={"kind": "v1"}, activation="elu", norm="none")
    decoder = made(ImageSpec(height=64, width=64), config)
    assert decoder(*parts(config)).shape == (3, 64, 64, 3)


def test_vectors_errors_are_divided_by_the_variance_of_each_element_where_it_is_below_one(config):
    joints = {"joints": VectorSpec(size=3)}
    spec = Spec(images={}, vectors=joints, action=ActionSpec(low=(-1,), high=(1,)))
    made = [
        Decoder(
            spec, config.sizes, config.encoder, config.decoder, config.units, Style(), measured=own
        )
        for own in (False, True)
    ]
    made[1].load_state_dict(made[0].state_dict(), strict=False)
    deter, stoch = parts(config)
    latent = Latent(
        deter, stoch.unflatten(1, (config.categorical.groups, config.categorical.classes))
    )
    joints = torch.tensor([[0.01, 0.5, 90.0], [0.02, 0.1, -90.0], [0.03, 0.9, 0.0]])
    with torch.no_grad():
        plain, own = (d.loss(latent, {"joints": joints})["joints"] for d in made)
        scaled = spec.vectors["joints"].scaled(joints)
        error = (made[0].vectors["joints"](latent.read(config.decoder.reads)) - scaled).square()
    variance = scaled.var(0, correction=0).clamp(1e-3, 1.0)
    torch.testing.assert_close(plain, error.sum(-1))
    torch.testing.assert_close(own, (error / variance).sum(-1))
    assert variance.tolist() == pytest.approx([1e-3, variance[1].item(), 1.0])


@pytest.mark.parametrize("kind", ["k5pool", "k5s2", "k4s2", "patch"])
@pytest.mark.parametrize("pixels", ["sigmoid", "linear"])
def test_images_begin_at_the_mean_colour_of_the_data(config, image, kind, pixels):
    config = changed(config, decoder={"pixels": pixels}, encoder={"kind": kind})
    decoder, latent = whole(image, config)
    obs = torch.zeros((3, 5, 16, 16, 3), dtype=torch.uint8)
    obs[..., 0], obs[:, :, :4, :, 1] = 204, 255  # red 0.8 everywhere, green on a quarter, no blue
    with torch.no_grad():
        decoder.images["image"].up[-1].weight.zero_()
    decoder.begin_at_mean({"image": obs})
    shade = decoder(latent)["image"].float().mean((0, 1, 2)) / 255
    assert shade.tolist() == pytest.approx([0.8, 0.25, 0.01], abs=0.005)


def test_pixels_that_say_nothing_do_not_count_in_the_mean(config):
    from wm_core.contract.inputs import Depth

    image = Depth(height=16, width=16, near_mm=0, far_mm=1000)
    decoder, latent = whole(image, config)
    obs = torch.zeros((2, 16, 16, 1), dtype=torch.uint16)
    obs[:, 3] = 300
    with torch.no_grad():
        decoder.images["image"].up[-1].weight.zero_()
    decoder.begin_at_mean({"image": obs})
    assert decoder(latent)["image"].float().mean() == pytest.approx(300, abs=1)
    decoder.begin_at_mean({"image": torch.zeros_like(obs)})  # of which nothing is known
    assert decoder(latent)["image"].float().mean() == pytest.approx(500, abs=1)
