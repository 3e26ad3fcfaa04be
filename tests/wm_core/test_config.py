"""Settings refuse what cannot be built, and name what to change."""

from __future__ import annotations

import pytest

from wm_core.behavior.settings import BehaviorConfig
from wm_core.config import Config
from wm_core.world.part_settings import TransformerConfig
from wm_core.world.settings import WorldConfig

TRANSFORMER = {"backbone": "transformer"}


def test_sizes_that_do_not_fit_together_are_refused():
    with pytest.raises(
        ValueError, match=r"multiple of world.gru.blocks 8, got 20; .*--world.gru.deter"
    ):
        WorldConfig(gru={"deter": 20})
    with pytest.raises(ValueError, match="odd number of bins, got 254"):
        WorldConfig(heads={"bins": 254})


def test_blocks_matter_only_where_there_are_some():
    assert WorldConfig(gru={"deter": 20, "cell": "plain"}).sizes.deter == 20
    assert WorldConfig(ssm={"deter": 20}, gru={"deter": 20}, backbone="ssm").sizes.deter == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "mdn", "kl": {"rep": "unit"}}, "prior mdn needs world.latent gaussian"),
        ({"prior": "mdn", "latent": "gaussian"}, "prior mdn needs world.kl.rep unit"),
        ({"gradients": "staged"}, "gradients staged needs a posterior .* backbone than gru"),
        ({"gradients": "staged", "backbone": "ssm"}, "gradients staged needs world.decoder.reads"),
        ({"objective": "barlow"}, "objective barlow needs world.decoder.kind none or detached"),
        ({"decoder": {"kind": "none"}}, "objective recon needs world.decoder.kind joint"),
        ({"decoder": {"kind": "detached"}}, "objective recon needs world.decoder.kind joint"),
        ({"kl": {"rep": "consistency"}, "latent": "gaussian"}, "rep consistency needs"),
        ({"entropy": {"scale": 1.0}, "latent": "gaussian"}, "entropy.scale needs world.latent"),
        ({"backbone": "grue"}, r"unknown backbone 'grue'; did you mean 'gru'\?"),
        ({"latent": "uniform"}, "unknown latent 'uniform'"),
    ],
)
def test_parts_of_a_world_that_do_not_fit_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WorldConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"behavior": {"actor": {"layers": 0}}},
        {"behavior": {"critic": {"layers": 0}}},
        {"optim": {"beta1": 1.0}},
        {"optim": {"beta2": 1.0}},
        {"replay": {"prioritized": {"exponent": 2.5}}},
    ],
)
def test_numbers_that_nothing_can_learn_with_are_refused(settings):
    with pytest.raises(ValueError, match="should be"):
        Config(**settings)


@pytest.mark.parametrize("rule", ["hinge", "adaptive"])
@pytest.mark.parametrize("action", ["tanh_normal", "truncated_normal"])
def test_a_share_of_the_entropy_wants_a_deviation_with_a_range(rule, action):
    with pytest.raises(ValueError, match=f"entropy.rule {rule} needs behavior.actor.kind normal"):
        BehaviorConfig(entropy={"rule": rule}, actor={"kind": action})


def test_an_actor_without_memory_wants_a_posterior_without_memory():
    with pytest.raises(ValueError, match=r"behavior.reads stoch .* world.backbone than gru"):
        Config(behavior=BehaviorConfig(reads="stoch"))
    Config(world=WorldConfig(backbone="lstm"), behavior=BehaviorConfig(reads="stoch"))


@pytest.mark.parametrize("tokens", ["split", "actions"])
def test_tokens_that_a_robot_does_not_have_want_an_actor_without_memory(tokens):
    world = WorldConfig(**TRANSFORMER, transformer=TransformerConfig(tokens=tokens, window=99))
    with pytest.raises(ValueError, match=f"transformer.tokens {tokens} needs behavior.reads"):
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
    assert world.sizes.deter == world.sizes.of("deter") == 96
    assert world.sizes.of("feat") == 96 + 32 * 16
    gaussian = WorldConfig(latent="gaussian", gaussian={"size": 7}, gru={"deter": 16})
    assert (gaussian.sizes.of("stoch"), gaussian.sizes.of("feat")) == (7, 23)
