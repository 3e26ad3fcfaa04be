"""What ``wm presets`` and the help of ``wm train`` say of the systems that there are."""

import json

import pytest

from wm_core import presets
from wm_core.cli.main import main
from wm_core.cli.presets import about, differing
from wm_core.config import Config


def objects(capsys, *words):
    assert main(["presets", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("size", ["micro", "paper"])
def test_the_table_names_every_preset(capsys, size):
    assert main(["presets", "--size", size]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in presets.PRESETS)


def test_a_size_that_few_come_in_lists_those_few(capsys):
    assert [one["name"] for one in objects(capsys, "--size", "12m")] == ["dreamer_v3", "r2dreamer"]


def test_every_object_holds_the_whole_config(capsys):
    for one in objects(capsys):
        assert Config.model_validate(one["config"]) == presets.make(one["name"], "micro")
        assert one["parts"] == presets.row_of(presets.make(one["name"], "micro"))._asdict()
        assert "micro" in one["sizes"]
        assert one["about"]


def test_one_preset_says_where_its_numbers_come_from_and_what_it_sets(capsys):
    assert main(["presets", "twm"]) == 0
    said = capsys.readouterr().out
    assert "arXiv:2303.07109" in said
    assert "--world.transformer.tokens" in said
    assert "--world.heads.bins" not in said  # the default's


def test_the_settings_that_differ_make_the_preset_out_of_the_defaults():
    found = dict((name, value) for name, value, _ in differing(presets.make("s4wm", "micro")))
    assert found["--world.backbone"] == "ssm"
    assert found["--world.ssm.layers"] == 2
    assert list(differing(Config())) == []


@pytest.mark.parametrize(
    ("words", "hint"), [(["twn"], "did you mean 'twm'"), (["--size", "mcro"], "'micro'")]
)
def test_a_typo_names_the_nearest(capsys, words, hint):
    assert main(["presets", *words]) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_preset_says_in_words_what_it_is(preset):
    first = about(preset).splitlines()[0]
    assert first[0].isupper()
    assert any(mark in first for mark in ("arXiv:", "ICLR"))


def test_the_help_of_train_says_whose_its_defaults_are(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train", "--preset", "twm", "--help-all"])
    assert end.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "defaults below are those of twm in size micro" in said
    assert "arXiv:2303.07109" in said
    assert "Train a world model and a policy." in said


def test_the_short_help_of_train_has_the_defaults_of_the_preset_too(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--preset", "twm", "--size", "paper", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "are those of twm in size paper" in said
    paper = presets.make("twm", "paper")
    assert f"Windows per update (B), at least 1 ({paper.replay.batch})" in said


def test_a_preset_misspelt_names_the_nearest(capsys, tmp_path):
    assert main(["train", "--preset", "dreamer_v4", "--run", str(tmp_path / "run")]) == 2
    assert "did you mean 'dreamer_v" in capsys.readouterr().err
