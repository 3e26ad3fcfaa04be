"""Settings of replay: how experience is kept and drawn; importable without torch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from wm_core.contract.spec import Frozen
from wm_core.parts import Part, PartSettings, PartTable


class UniformConfig(Frozen):
    """Settings of the uniform selector: it has none."""


class PrioritizedConfig(Frozen):
    """Settings of the selector that draws badly predicted windows more often."""

    exponent: float = Field(
        0.7,
        ge=0,
        le=2,
        description="Power of a window's loss in its chance to be drawn; 0: uniform.",
    )
    uniform: float = Field(0.1, ge=0, le=1, description="Share of uniform draws, from 0 to 1.")


class BalancedConfig(Frozen):
    """Settings of the selector that draws windows the more often, the less they were drawn."""

    temperature: float = Field(
        20.0, gt=0, description="Draws after which a window is e times less likely than before."
    )


#: a selector is made by ``make(settings, rng)``, see ``replay.selectors.Selector``
SELECTORS = PartTable(
    "selector",
    uniform=Part(UniformConfig, "wm_core.replay.selectors:Uniform"),
    prioritized=Part(PrioritizedConfig, "wm_core.replay.selectors:Prioritized"),
    balanced=Part(BalancedConfig, "wm_core.replay.selectors:Balanced"),
)


class ReplayConfig(PartSettings):
    """How experience is kept and drawn."""

    tables: ClassVar = {"selector": SELECTORS}

    batch: int = Field(16, gt=0, description="Windows per update (B), at least 1.")
    length: int = Field(64, gt=1, description="Agent steps of a window (T), at least 2.")
    cache_bytes: int = Field(1_000_000_000, ge=0, description="Bytes of decoded images in memory.")
    store_max_bytes: int = Field(
        50_000_000_000, gt=0, description="Bytes of the store on disk; the oldest are deleted."
    )
    latents: int = Field(1_000_000, ge=0, description="Steps whose latents are kept; 0: none.")
    online_queue: bool = Field(True, description="Train once on each new window, in order.")
    prefetch: bool = Field(
        True, description="Read the next batch in a thread while the present one is learnt from."
    )
    selector: str = Field(
        "uniform", description="Selector: uniform, prioritized, balanced, or your own."
    )
    demonstrations: Path | None = Field(
        None, description="Store whose windows fill a share of every batch; it is only read."
    )
    demonstration_share: float = Field(
        0.25, gt=0, lt=1, description="Share of each batch that demonstrations fill, 0 to 1."
    )
    intervention_weight: float = Field(
        1.0, ge=1, description="How many times likelier a window with an intervention is drawn."
    )
    uniform: UniformConfig = UniformConfig()
    prioritized: PrioritizedConfig = PrioritizedConfig()
    balanced: BalancedConfig = BalancedConfig()

    @model_validator(mode="after")
    def _fits(self) -> ReplayConfig:
        if self.demonstrations is not None and self.batch < 2:
            raise ValueError(
                "replay.demonstrations needs a batch of at least 2 windows, one of them the run's "
                f"own; got replay.batch {self.batch}"
            )
        return self

    @property
    def demonstration_windows(self) -> int:
        """Count the windows of each batch that are demonstrations, as near to the share as can be.

        There is at least one, and at least one of the run's own.
        """
        if self.demonstrations is None:
            return 0
        return min(self.batch - 1, max(1, round(self.demonstration_share * self.batch)))
