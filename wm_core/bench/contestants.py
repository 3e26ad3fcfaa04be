"""Which presets and sizes a benchmark measures, refused before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wm_core import presets

DEFAULT = "dreamer_v3"  #: what figures are of whose names say no preset
SMALL = ("micro", "1m", "12m")  #: measured of each preset that comes in them, unless told


class Contestant(NamedTuple):
    """One network that is measured."""

    preset: str
    size: str

    @property
    def name(self) -> str:
        """How the names of its figures begin."""
        return self.size if self.preset == DEFAULT else f"{self.preset}/{self.size}"


def contestants(names: Sequence[str], sizes: Sequence[str]) -> list[Contestant]:
    """Every preset of ``names`` in every size of ``sizes``; without sizes, in its small ones.

    Raises:
        SettingsError: for a preset or a size that there is not, naming the nearest.
    """
    found = []
    for preset in names:
        presets.make(preset, "micro")  # a typo is said before sizes are asked for
        of_preset = [s for s in SMALL if s in presets.sizes_of(preset)]
        found += [Contestant(preset, size) for size in sizes or of_preset]
    for preset, size in found:
        presets.make(preset, size)
    return found
