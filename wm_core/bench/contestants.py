"""Which presets and sizes a benchmark measures, checked before anything is measured."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import tyro
from pydantic import Field

from wm_core import presets
from wm_core.bench.report import BenchSettings
from wm_core.config import Config
from wm_core.presets.micro import changed

DEFAULT = "dreamer_v3"  #: the preset of figures whose names say none
SMALL = ("micro", "1m", "12m")  #: sizes to measure where none are named
BASE = "base"  #: a size of dreamer_v3 that others measure too, about 30 MB as a file
_BASE: dict[str, Any] = {
    "units": 512, "encoder": {"depth": 32}, "categorical": {"groups": 32, "classes": 32},
    "gru": {"deter": 512, "hidden": 512}, "posterior": {"units": 512}, "net": {"units": 512},
}  # fmt: skip


class ContestantSettings(BenchSettings):
    """Says which presets and sizes to measure."""

    presets: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--preset"])] = Field(
        (DEFAULT,),
        description="Presets to measure, such as dreamer_v3 or twm",
    )
    sizes: tuple[str, ...] = Field(
        (),
        description="Sizes to measure, base among them; none: micro, 1m and 12m where they exist",
    )


class Contestant(NamedTuple):
    """One network that is measured."""

    preset: str
    size: str

    @property
    def name(self) -> str:
        """The beginning of the names of its figures."""
        return self.size if self.preset == DEFAULT else f"{self.preset}/{self.size}"

    def config(self) -> Config:
        """Its settings; raises ``SettingsError`` for an unknown preset or size."""
        if (self.preset, self.size) == (DEFAULT, BASE):
            config = changed(presets.make(DEFAULT, "12m"), world=_BASE)
            return config.model_copy(update={"size": BASE})
        return presets.make(self.preset, self.size)


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
        contestant.config()
    return found
