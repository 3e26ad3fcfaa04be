"""Which presets and sizes a benchmark measures, checked before anything is measured."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import tyro
from pydantic import Field

from wm_core import presets
from wm_core.bench.report import BenchSettings

DEFAULT = "dreamer_v3"  #: the preset of figures whose names say none
SMALL = ("micro", "1m", "12m")  #: sizes to measure where none are named


class ContestantSettings(BenchSettings):
    """Says which presets and sizes to measure."""

    presets: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--preset"])] = Field(
        (DEFAULT,),
        description="Presets to measure, such as dreamer_v3 or twm",
    )
    sizes: tuple[str, ...] = Field(
        (), description="Network sizes to measure; none: micro, 1m and 12m where they exist"
    )


class Contestant(NamedTuple):
    """One network that is measured."""

    preset: str
    size: str

    @property
    def name(self) -> str:
        """The beginning of the names of its figures."""
        return self.size if self.preset == DEFAULT else f"{self.preset}/{self.size}"


def contestants(settings: ContestantSettings) -> list[Contestant]:
    """List every preset in every size of ``settings``; without sizes, in its small ones.

    Raises:
        SettingsError: for an unknown preset or size, naming the nearest.
    """
    found = []
    for preset in settings.presets:
        presets.make(preset, "micro")  # refuses a typo of the preset before one of a size
        small = [s for s in SMALL if s in presets.sizes_of(preset)]
        found += [Contestant(preset, size) for size in settings.sizes or small]
    for contestant in found:
        presets.make(*contestant)
    return found
