"""Which networks a benchmark measures."""

import pytest

from wm_core import presets
from wm_core.bench.contestants import ContestantSettings, contestants
from wm_core.contract.errors import SettingsError


def test_without_named_sizes_each_preset_is_measured_in_its_small_ones():
    found = contestants(ContestantSettings(presets=("dreamer_v3", "twm")))
    assert [one.name for one in found] == ["micro", "1m", "12m", "twm/micro"]


def test_every_preset_can_be_measured():
    found = contestants(ContestantSettings(presets=tuple(presets.PRESETS)))
    assert {one.preset for one in found} == set(presets.PRESETS)


@pytest.mark.parametrize(
    ("names", "sizes", "hint"),
    [(["twn"], [], "'twm'"), (["twm"], ["mcro"], "'micro'"), (["twm"], ["12m"], "size of twm")],
)
def test_a_typo_is_refused_naming_the_nearest(names, sizes, hint):
    with pytest.raises(SettingsError, match=hint):
        contestants(ContestantSettings(presets=names, sizes=sizes))


def test_the_base_size_is_that_of_other_benchmarks():
    (base,) = contestants(ContestantSettings(sizes=("base",)))
    world = base.config().world
    assert (world.gru.deter, world.categorical.groups, world.categorical.classes) == (512, 32, 32)
    assert (base.name, base.config().size, world.encoder.depth) == ("base", "base", 32)
