"""Which networks a benchmark measures."""

import pytest

from wm_core import presets
from wm_core.bench.contestants import contestants
from wm_core.contract.errors import SettingsError


def test_without_sizes_each_preset_has_those_that_it_comes_in():
    found = contestants(["dreamer_v3", "twm"], [])
    assert [one.name for one in found] == ["micro", "1m", "12m", "twm/micro"]


def test_every_preset_can_be_measured():
    assert {one.preset for one in contestants(list(presets.PRESETS), [])} == set(presets.PRESETS)


@pytest.mark.parametrize(
    ("names", "sizes", "hint"),
    [(["twn"], [], "'twm'"), (["twm"], ["mcro"], "'micro'"), (["twm"], ["12m"], "size of twm")],
)
def test_a_typo_is_refused_naming_the_nearest(names, sizes, hint):
    with pytest.raises(SettingsError, match=hint):
        contestants(names, sizes)
