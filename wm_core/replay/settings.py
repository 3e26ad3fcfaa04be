"""Settings of replay: how experience is kept and drawn; importable without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, SerializeAsAny, model_validator

from wm_core.contract.spec import Frozen
from wm_core.parts import Part, PartTable, with_own_settings


class UniformConfig(Frozen):
    """Settings of the uniform selector: it has none."""


class PrioritizedConfig(Frozen):
    """Settings of the selector that draws badly predicted windows more often."""

    exponent: float = Field(
        0.7, ge=0, description="Power of a window's loss in its chance; 0 makes all chances equal."
    )
    uniform: float = Field(
        0.1, ge=0, le=1, description="Share of draws, 0 to 1, that ignore the windows' losses."
    )


class ReplayConfig(Frozen):
    """How experience is kept and drawn."""

    batch: int = Field(16, gt=0, description="Windows per update (B), at least 1.")
    length: int = Field(64, gt=1, description="Agent steps of a window (T), at least 2.")
    cache_bytes: int = Field(
        1_000_000_000, ge=0, description="Bytes of decoded images that are kept in memory."
    )
    store_max_bytes: int = Field(
        50_000_000_000, gt=0, description="Bytes of the store on disk; the oldest are deleted."
    )
    latents: int = Field(
        1_000_000, ge=0, description="Steps whose latents the learner keeps; 0 keeps none."
    )
    online_queue: bool = Field(
        True, description="Train once on each new window, freshest first, before the selector."
    )
    selector: str = Field(
        "uniform", description="Choice of windows: uniform, prioritized, or a registered name."
    )
    uniform: UniformConfig = UniformConfig()
    prioritized: PrioritizedConfig = PrioritizedConfig()
    own: dict[str, SerializeAsAny[Frozen]] = Field(
        {}, description="Settings of the chosen selector where another package registered it."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_own(cls, values: Any) -> Any:
        return with_own_settings(values, {"selector": SELECTORS})

    @property
    def of_selector(self) -> Any:
        """The settings of the chosen selector."""
        return self.own.get(self.selector) or getattr(self, self.selector)


#: a selector is made by ``make(settings, rng)``, see ``replay.selectors.Selector``
SELECTORS: PartTable[Callable[..., Any]] = PartTable(
    "selector",
    {
        "uniform": Part(UniformConfig, "wm_core.replay.selectors:Uniform"),
        "prioritized": Part(PrioritizedConfig, "wm_core.replay.selectors:Prioritized"),
    },
)
