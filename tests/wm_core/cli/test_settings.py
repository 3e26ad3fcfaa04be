"""How words of a command line become settings: numbers, wrong values, old names."""

from __future__ import annotations

from typing import Annotated

import pytest
import tyro
from pydantic import Field

from wm_core.cli.main import main as wm
from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Frozen
from wm_core.library.run_folder import TrainSettings


class Inner(Frozen):
    """How hard."""

    count: int = Field(3, gt=0, description="How often it is done at all")
    limit: int | None = Field(None, description="Most of them, or no limit")
    stages: tuple[int, ...] = Field((), description="Counts of several stages in turn")
    share: float = Field(0.5, lt=1, description="Share that may be lost there")


class Outer(Frozen):
    """Do something."""

    name: tyro.conf.Positional[str] = Field("", description="What is done here, by name")
    from_s: Annotated[float, tyro.conf.arg(name="from")] = Field(0, ge=0, description="Its begin")
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(False, description="As one object")
    inner: Inner = Inner()


def read(*words, default=None):
    return parse(Outer, words, verb="try", default=default)


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (("--inner.count", "1e6"), "count", 1_000_000),
        (("--inner.count=2e4",), "count", 20_000),
        (("--inner.count", "500_000"), "count", 500_000),
        (("--inner.limit", "1e3"), "limit", 1000),
        (("--inner.limit", "None"), "limit", None),
        (("--inner.stages", "1e2", "400"), "stages", (100, 400)),
        (("--inner.share", "1e-3"), "share", 0.001),
    ],
)
def test_whole_numbers_may_be_written_with_an_exponent(words, field, value):
    found = getattr(read(*words).inner, field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("option", ["count", "limit", "stages"])
@pytest.mark.parametrize("text", ["1.5", "1e-1", "ten", "1e999999"])
def test_a_fraction_or_a_word_is_refused_by_name(option, text, capsys):
    with pytest.raises(SystemExit) as end:
        read(f"--inner.{option}", text)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"--inner.{option}" in said
    assert text in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--inner.count", "-4"), "--inner.count: expected a value greater than 0, got -4"),
        (("--inner.share", "2"), "--inner.share: expected a value less than 1, got 2.0"),
        (("--from", "-1"), "--from: expected a value greater than or equal to 0, got -1.0"),
    ],
)
def test_a_value_out_of_its_range_is_one_sentence(words, why):
    with pytest.raises(SettingsError) as error:
        read(*words)
    assert str(error.value) == why


def test_every_wrong_value_of_a_group_is_named():
    with pytest.raises(SettingsError, match=r"--inner\.count.*; --inner\.share"):
        read("--inner.count", "0", "--inner.share", "7")


def test_words_positions_flags_and_defaults_are_read():
    start = Outer(name="a", inner=Inner(count=9, stages=(1, 2)))
    assert read(default=start) == start
    found = read("b", "--json", "--inner.limit", "5", default=start)
    assert found == Outer(name="b", json_=True, inner=Inner(count=9, limit=5, stages=(1, 2)))


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--run", "never", "--train.steps", "1.5"),
        ("evaluate", "--episodes", "1.5"),
        ("bench", "replay", "--batch", "1.5"),
        ("policy", "promote", "1.5", "--to", "main", "--root", "never"),
        ("store", "pull", "--from", "x", "--root", "never", "--min-free-bytes", "1.5"),
    ],
)
def test_verbs_of_both_kinds_refuse_a_fraction(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        status = wm([*words])
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert "1.5" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_train_takes_whole_numbers_with_an_exponent():
    words = ("--run", "x", "--train.steps", "1e6", "--replay.store-max-bytes", "2e9")
    found = parse(TrainSettings, words, verb="train")
    assert found.train.steps == 1_000_000
    assert found.replay.store_max_bytes == 2_000_000_000
