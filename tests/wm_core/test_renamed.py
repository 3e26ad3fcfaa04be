"""Settings and options under their old names are read, and what they are called now is said."""

import pytest
from pydantic import BaseModel

from wm_core import presets
from wm_core.cli.main import main
from wm_core.config import Config
from wm_core.presets.micro import changed
from wm_core.renamed import RENAMED, renewed, renewed_words


def leaf(config: Config, name: str):
    for field in name.split("."):
        config = getattr(config, field)
    return config


@pytest.mark.parametrize("name", sorted({n for names in RENAMED.values() for n in names}))
def test_every_new_name_is_an_option(name):
    leaf(Config(), name)


def test_no_old_name_is_still_an_option_of_its_own():
    for old in RENAMED:
        room, _, field = old.partition(".")
        now = getattr(getattr(Config(), room), field, None)
        assert now is None or isinstance(now, BaseModel), old


def test_an_old_setting_goes_to_every_place_that_read_it():
    world = Config.model_validate({"world": {"hidden": 24, "deter": 48, "head_layers": 3}}).world
    assert (world.gru.hidden, world.posterior.units, world.net.units) == (24, 24, 24)
    assert world.gru.deter == 48
    assert world.heads.layers == 3
    assert world.lstm == Config().world.lstm  # is not the backbone that was chosen


def test_old_and_new_names_may_stand_in_one_file():
    values = {"world": {"depth": 4, "encoder": {"kind": "v1"}, "decoder": "none", "kl": {},
                        "objective": "barlow", "free_nats": 0.5}}  # fmt: skip
    world = Config.model_validate(values).world
    assert (world.encoder.kind, world.encoder.depth) == ("v1", 4)
    assert world.decoder.kind == "none"
    assert world.kl.free_nats == 0.5
    assert values["world"]["depth"] == 4  # the caller's own values stay as they were


def test_new_settings_stay_as_they_are():
    dumped = presets.make("twm", "micro").model_dump()
    assert renewed(dumped) == dumped


def test_changes_may_be_nested():
    config = changed(presets.make("dreamer_v3", "micro"), world={"gru": {"deter": 64}})
    assert (config.world.gru.deter, config.world.gru.hidden) == (64, 128)


def test_old_options_become_new_ones_with_their_values():
    old = ["--run", "r", "--world.groups", "4", "--world.free-nats=0.5", "--world.no-cont", "-x"]
    new, notes = renewed_words(old)
    assert new == [
        "--run", "r", "--world.categorical.groups", "4", "--world.kl.free-nats=0.5",
        "--world.heads.no-cont", "-x",
    ]  # fmt: skip
    assert notes[0] == "--world.groups is called --world.categorical.groups now"
    assert renewed_words(new) == (new, [])


def test_one_old_option_may_become_several():
    new, notes = renewed_words(["--world.deter", "32"])
    assert new == [
        "--world.gru.deter", "32", "--world.lstm.deter", "32", "--world.ssm.deter", "32",
    ]  # fmt: skip
    assert "--world.gru.deter and --world.lstm.deter" in notes[0]


def test_training_says_what_an_old_option_is_called_now(capsys):
    assert main(["train", "--run", "x", "--world.groups", "0"]) == 2
    assert "--world.groups is called --world.categorical.groups now" in capsys.readouterr().err


@pytest.mark.parametrize(
    "old", [["--behavior.slow", "pull"], ["--behavior.slow=pull"]], ids=["apart", "joined"]
)
def test_an_old_word_for_a_value_is_read_too(old):
    words, _ = renewed_words(old)
    assert "=".join(words) == "--behavior.critic.target-network=regularize"
    config = Config.model_validate({"behavior": {"slow": "target"}})
    assert config.behavior.critic.target_network == "bootstrap"
