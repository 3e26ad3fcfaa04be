"""Presets are named settings, and a name that does not exist is refused with the nearest."""

from __future__ import annotations

import pytest

from wm_core import presets
from wm_core.contract.errors import SettingsError


def test_an_unknown_preset_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'dreamer_v3'"):
        presets.make("dreamer_v33", "micro")
