"""Settings refuse what cannot be built, and name what to change."""

from __future__ import annotations

import pytest

from wm_core.behavior.settings import BehaviorConfig
from wm_core.config import Config
from wm_core.world.settings import TransformerConfig, WorldConfig

TRANSFORMER = {"backbone": "transformer"}


def test_sizes_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="deter 20 is no multiple of 8 blocks"):
        WorldConfig(deter=20)
    with pytest.raises(ValueError, match="odd number of bins, got 254"):
        WorldConfig(bins=254)


def test_blocks_matter_only_where_there_are_some():
    assert WorldConfig(deter=20, cell="plain").deter_size == 20
    assert WorldConfig(deter=20, backbone="ssm").deter_size == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "mdn", "rep": "unit"}, "prior mdn wants latent gaussian"),
        ({"prior": "mdn", "latent": "gaussian"}, "prior mdn wants rep unit"),
        ({"gradients": "staged"}, "gradients staged wants a posterior without memory"),
        ({"gradients": "staged", "backbone": "ssm"}, "gradients staged wants decoder_reads"),
        ({"objective": "barlow"}, "objective barlow wants decoder none or detached"),
        ({"decoder": "none"}, "objective recon wants decoder joint"),
        ({"decoder": "detached"}, "objective recon wants decoder joint"),
        ({"rep": "consistency", "latent": "gaussian"}, "rep consistency wants latent categorical"),
        ({"entropy_scale": 1.0, "latent": "gaussian"}, "entropy_scale wants latent categorical"),
    ],
)
def test_parts_of_a_world_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WorldConfig(**settings)


@pytest.mark.parametrize("rule", ["hinge", "adaptive"])
@pytest.mark.parametrize("action", ["tanh_normal", "truncated_normal"])
def test_a_share_of_the_entropy_wants_a_deviation_with_a_range(rule, action):
    with pytest.raises(ValueError, match=f"entropy_rule {rule} wants action normal"):
        BehaviorConfig(entropy_rule=rule, action=action)


def test_an_actor_without_memory_wants_a_posterior_without_memory():
    with pytest.raises(ValueError, match=r"behavior.reads stoch .* not a gru's posterior"):
        Config(behavior=BehaviorConfig(reads="stoch"))
    Config(world=WorldConfig(backbone="lstm"), behavior=BehaviorConfig(reads="stoch"))


@pytest.mark.parametrize("tokens", ["split", "actions"])
def test_tokens_that_a_robot_does_not_have_want_an_actor_without_memory(tokens):
    world = WorldConfig(**TRANSFORMER, transformer=TransformerConfig(tokens=tokens, window=99))
    with pytest.raises(ValueError, match=f"transformer.tokens {tokens} wants behavior.reads"):
        Config(world=world)
    Config(world=world, behavior=BehaviorConfig(reads="stoch"))


def test_actions_alone_want_a_window_that_holds_all_of_them():
    def make(window, horizon):
        part = TransformerConfig(tokens="actions", window=window)
        behavior = BehaviorConfig(reads="stoch", imag_horizon=horizon)
        return Config(
            world=WorldConfig(**TRANSFORMER, transformer=part),
            behavior=behavior,
            replay={"length": 20},
        )

    with pytest.raises(ValueError, match=r"transformer.window 19: .* 20 tokens"):
        make(19, 15)
    with pytest.raises(ValueError, match=r"transformer.window 20: .* 31 tokens"):
        make(20, 30)
    make(20, 19)


def test_a_gru_s_settings_do_not_hold_a_transformer_back():
    """Tokens are read only where there is a transformer."""
    part = TransformerConfig(tokens="split")
    assert Config(world=WorldConfig(transformer=part)).behavior.reads == "feat"


def test_what_is_read_has_the_length_of_its_parts():
    world = WorldConfig(
        **TRANSFORMER, transformer=TransformerConfig(width=32, layers=3, readout="all")
    )
    assert world.deter_size == world.width_of("deter") == 96
    assert world.width_of("feat") == 96 + 32 * 16
    gaussian = WorldConfig(latent="gaussian", gaussians=7, deter=16)
    assert (gaussian.width_of("stoch"), gaussian.width_of("feat")) == (7, 23)
