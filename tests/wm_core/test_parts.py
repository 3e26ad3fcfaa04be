"""Tables of parts that packages from outside add to."""

import sys

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Frozen
from wm_core.parts import Part, PartTable


class Size(Frozen):
    """Settings of the parts below."""

    size: int = 3


def double(settings):
    return 2 * settings.size


@pytest.fixture
def table():
    return PartTable("gadget", text=Part(Size, "textwrap:dedent"))


def test_a_registered_part_is_found_by_its_name(table):
    table.register("double", Size, double)
    assert table.names() == ["text", "double"]
    assert table.make("double")(table.settings_of("double")(size=4)) == 8
    assert not table.is_builtin("double")


def test_a_builtin_part_is_imported_when_it_is_made(table):
    assert table.make("text")("  a") == "a"
    assert table.is_builtin("text")


def test_a_part_can_be_registered_again(table):
    table.register("double", Size, double)
    table.register("double", Size, "textwrap:dedent")
    assert table.make("double") is not double


def test_an_unknown_name_is_refused_with_the_nearest_and_the_way_to_add_it(table):
    table.register("double", Size, double)
    with pytest.raises(SettingsError, match=r"unknown gadget 'duble'; did you mean 'double'\?"):
        table.make("duble")
    with pytest.raises(SettingsError, match=r"`register` or by an entry point .* wm_core.gadget"):
        table.settings_of("else")


@pytest.mark.parametrize(("name", "says"), [("text", "is built in"), ("a-b", "an identifier")])
def test_a_name_that_is_taken_or_cannot_be_an_option_is_refused(table, name, says):
    with pytest.raises(SettingsError, match=says):
        table.register(name, Size, double)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package on the path whose metadata offers two gadgets, one of them no ``Part``."""
    (tmp_path / "others_parts.py").write_text(
        "from wm_core.contract.spec import Frozen\n"
        "from wm_core.parts import Part\n"
        "class Settings(Frozen):\n"
        "    size: int = 5\n"
        "part = Part(Settings, lambda settings: settings.size)\n"
    )
    info = tmp_path / "others_parts-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[wm_core.gadget]\nfive = others_parts:part\nbroken = others_parts:Settings\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("others_parts", None)


def test_an_installed_package_brings_a_part_by_its_entry_point(table, installed):
    assert table.names() == ["text", "five", "broken"]
    assert "others_parts" not in sys.modules
    assert table.make("five")(table.settings_of("five")()) == 5


def test_an_entry_point_to_something_else_is_refused(table, installed):
    with pytest.raises(SettingsError, match=r"expected a wm_core.parts.Part, got ModelMetaclass"):
        table.settings_of("broken")
