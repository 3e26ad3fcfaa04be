"""Presets are named settings: all of them are valid, and say which system they are."""

from __future__ import annotations

import pytest

from wm_core import presets
from wm_core.config import Config
from wm_core.contract.errors import SettingsError

EVERY = [(preset, size) for preset in presets.PRESETS for size in presets.sizes_of(preset)]


@pytest.mark.parametrize(("preset", "size"), EVERY)
def test_every_preset_in_every_size_is_valid_and_knows_its_name(preset, size):
    config = presets.make(preset, size)
    assert config.preset == preset
    assert config.size == size
    assert Config.model_validate(config.model_dump()) == config


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'dreamer_v3'"):
        presets.make("dreamer_v33", "micro")


def test_a_size_that_a_preset_has_not_is_refused():
    with pytest.raises(SettingsError, match="size of dreamer_v1"):
        presets.make("dreamer_v1", "12m")
    with pytest.raises(SettingsError, match="did you mean 'micro'"):
        presets.make("dreamer_v3", "mirco")


#: representation, latent, backbone, posterior, behaviour, what the actor reads, training
ROWS = {
    "world_models": ("recon", "gaussian", "lstm", "q(z|e)", "CMA-ES", "feat", "staged"),
    "dreamer_v1": ("recon", "gaussian", "gru", "q(z|h,e)", "dynamics", "feat", "joint"),
    "dreamer_v2": ("recon", "categorical", "gru", "q(z|h,e)", "auto", "feat", "joint"),
    "dreamer_v3": ("recon", "categorical", "gru", "q(z|h,e)", "reinforce", "feat", "joint"),
    "transdreamer": ("recon", "categorical", "transformer", "q(z|e)", "dynamics", "feat", "joint"),
    "twm": ("recon", "categorical", "transformer", "q(z|e)", "reinforce", "stoch", "staged"),
    "awm": ("recon", "categorical", "transformer", "q(z|e)", "dynamics", "stoch", "joint"),
    "daydreamer": ("recon", "categorical", "gru", "q(z|h,e)", "auto", "feat", "joint"),
    "s4wm": ("recon", "categorical", "ssm", "q(z|e)", "auto", "feat", "joint"),
    "r2dreamer": ("barlow", "categorical", "gru", "q(z|h,e)", "reinforce", "feat", "joint"),
}


#: what a small size does otherwise, for a reason on its page
MICRO = {"s4wm": {"auto": "reinforce"}}


@pytest.mark.parametrize("size", ["micro", "paper"])
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_a_preset_is_the_row_of_choices_of_its_paper_in_every_size(preset, size):
    row = presets.row_of(presets.make(preset, size))
    instead = MICRO.get(preset, {}) if size == "micro" else {}
    expected = tuple(instead.get(word, word) for word in ROWS[preset])
    assert tuple(got.split()[0].rstrip(",") for got in row) == expected
