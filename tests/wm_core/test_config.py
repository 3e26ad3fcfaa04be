"""Settings refuse what cannot be built."""

from __future__ import annotations

import pytest

from wm_core.config import WorldConfig


def test_sizes_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="deter 20 is no multiple of 8 blocks"):
        WorldConfig(deter=20)
    with pytest.raises(ValueError, match="odd number of bins, got 254"):
        WorldConfig(bins=254)
