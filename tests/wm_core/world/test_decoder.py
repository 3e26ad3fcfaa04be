"""What of a latent an image is drawn from."""

from __future__ import annotations

import pytest
import torch

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.nn.blocks import initialize
from wm_core.world.decoder import Decoder, ImageDecoder
from wm_core.world.latent import Latent


def test_a_seed_that_its_blocks_cannot_share_is_refused_with_advice(config):
    odd = config.model_copy(update={"blocks": 32, "deter": 32})
    with pytest.raises(SettingsError, match="16 numbers, expected a multiple of the 32 blocks"):
        ImageDecoder(ImageSpec(height=16, width=16), odd)


@pytest.fixture
def image():
    return ImageSpec(height=16, width=16)


def parts(config, n=3):
    generator = torch.Generator().manual_seed(1)
    deter = torch.randn(n, config.deter, generator=generator)
    return deter, torch.randn(n, config.stoch_size, generator=generator)


def made(image, config):
    decoder = ImageDecoder(image, config)
    initialize(decoder, torch.Generator().manual_seed(2))
    return decoder


def whole(image, config):
    """A decoder of one image, and (3,) latents that it draws."""
    decoder = Decoder(
        Spec(images={"image": image}, action=ActionSpec(low=(-1,), high=(1,))), config
    )
    initialize(decoder, torch.Generator().manual_seed(2))
    deter, stoch = parts(config)
    return decoder, Latent(deter, stoch.unflatten(1, (config.groups, config.classes)))


@pytest.mark.parametrize("pixels", ["sigmoid", "linear"])
def test_pixels_are_in_range_and_their_error_is_squared_and_summed(pixels, config, image):
    decoder, latent = whole(image, config.model_copy(update={"pixels": pixels}))
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
    decoder, latent = whole(image, config.model_copy(update={"pixels": "linear"}))
    for bias, shade in ((9.0, 255), (-9.0, 0)):
        decoder.images["image"].up[-1].bias.data.fill_(bias)
        assert (decoder(latent)["image"] == shade).all()


@pytest.mark.parametrize("reads", ["feat", "deter", "stoch"])
@pytest.mark.parametrize("cell", ["block", "plain"])
def test_an_image_is_drawn_from_the_part_that_is_read(reads, cell, config, image):
    config = config.model_copy(update={"decoder_reads": reads, "cell": cell})
    decoder, given = made(image, config), [p.requires_grad_() for p in parts(config)]
    slopes = torch.autograd.grad(decoder(*given).square().sum(), given, allow_unused=True)
    assert [s is not None and bool(s.any()) for s in slopes] == [
        reads != "stoch",
        reads != "deter",
    ]


def test_dreamer_v1_s_decoder_makes_an_image_of_sixty_four(config):
    config = config.model_copy(update={"encoder": "v1", "activation": "elu", "norm": "none"})
    decoder = made(ImageSpec(height=64, width=64), config)
    assert decoder(*parts(config)).shape == (3, 64, 64, 3)
