"""``import wm_core`` offers all names at once and imports what they need when they are used."""

import subprocess
import sys

import pytest

import wm_core


@pytest.mark.parametrize("name", wm_core.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(wm_core, name).__doc__
    assert name in dir(wm_core)


def test_the_names_that_type_checkers_see_are_those_that_are_imported():
    homes = [name for names in wm_core._HOMES.values() for name in names]
    assert sorted({*homes, "presets"}) == sorted(wm_core.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Agnet'"):
        wm_core.Agnet  # noqa: B018


def test_neither_torch_nor_ros_is_imported_until_a_name_needs_it():
    code = (
        "import sys, wm_core as wm\n"
        "heavy = {'torch', 'rclpy', 'onnxruntime', 'gymnasium', 'numpy', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "wm.Spec, wm.ActionSpec, wm.Episodes, wm.Batch, wm.Config, wm.presets, wm.PolicyRunner\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
