"""What of a latent an image is drawn from."""

from __future__ import annotations

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ImageSpec
from wm_core.world.decoder import ImageDecoder


def test_a_seed_that_its_blocks_cannot_share_is_refused_with_advice(config):
    odd = config.model_copy(update={"blocks": 32, "deter": 32})
    with pytest.raises(SettingsError, match="16 numbers, expected a multiple of the 32 blocks"):
        ImageDecoder(ImageSpec(height=16, width=16), odd)
