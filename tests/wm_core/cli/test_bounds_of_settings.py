"""Settings that no network can be built of, or learn with, are one sentence at the start."""

from __future__ import annotations

import pytest

from wm_core.cli.train import train_settings
from wm_core.contract.errors import SettingsError

SSM, TRANSFORMER = ("--world.backbone", "ssm"), ("--world.backbone", "transformer")
WAVES = (*TRANSFORMER, "--world.transformer.width", "33", "--world.transformer.positions")
HINGE = ("--behavior.entropy.rule", "hinge")

REFUSED = [
    (("--behavior.imag-starts", "0"), "--behavior.imag-starts: expected a value greater than 0"),
    (("--behavior.units", "0"), "--behavior.units: expected a value greater than 0"),
    (("--behavior.actor.min-std", "0", *HINGE), "rule hinge needs behavior.actor.min_std above 0"),
    (
        ("--behavior.actor.min-std", "0", "--behavior.entropy.rule", "adaptive"),
        "rule adaptive needs behavior.actor.min_std above 0",
    ),
    (("--behavior.actor.max-std", "0.1"), "max_std above behavior.actor.min_std 0.1, got 0.1"),
    (("--behavior.actor.init-std", "1000"), "--behavior.actor.init-std: expected a value less"),
    (("--behavior.returns.low", "0.95"), "low below behavior.returns.high 0.95, got 0.95"),
    ((*SSM, "--world.ssm.blocks", "7"), "multiple of world.ssm.blocks 7, got 128"),
    ((*WAVES, "sinusoid"), "positions sinusoid needs an even world.transformer.width"),
    ((*WAVES, "xl"), "positions xl needs an even world.transformer.width"),
    (("--world.entropy.floor", "1.5"), "--world.entropy.floor: expected a value less"),
    (("--optim.clip", "0"), "--optim.clip: expected a value greater than 0"),
    (("--optim.behavior-clip", "0"), "--optim.behavior-clip: expected a value greater than 0"),
    (("--optim.agc", "0"), "--optim.agc: expected a value greater than 0"),
    (("--optim.agc-floor", "0"), "--optim.agc-floor: expected a value greater than 0"),
    (("--optim.eps", "0"), "--optim.eps: expected a value greater than 0"),
    (("--optim.decay", "-1"), "--optim.decay: expected a value greater than or equal to 0"),
    (("--optim.clip", "inf"), "expected finite numbers, got optim.clip inf"),
    (("--world.kl.dyn-scale", "nan"), "expected finite numbers, got world.kl.dyn_scale nan"),
    (("--behavior.evolution.population", "3"), "population: expected a value greater than 3"),
    (("--behavior.returns.limit", "0"), "--behavior.returns.limit: expected a value greater"),
    (("--seed", "-1"), "--seed: expected a value greater than or equal to 0, got -1"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[" ".join(w) for w, _ in REFUSED])
def test_a_number_that_cannot_be_is_one_sentence_that_names_its_option(words, said):
    with pytest.raises(SettingsError) as refused:
        train_settings(["--run", "never", *words])
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        ("--behavior.actor.min-std", "0"),
        ("--behavior.actor.kind", "tanh_normal", "--behavior.actor.max-std", "0.1"),
        ("--world.ssm.blocks", "7"),
        ("--world.transformer.width", "33", "--world.transformer.positions", "xl"),
        (*TRANSFORMER, "--world.transformer.width", "33"),
    ],
    ids=" ".join,
)
def test_a_number_that_has_no_effect_here_holds_nothing_back(words):
    train_settings(["--run", "never", *words])
