"""The settings of a whole run are one frozen ``Config``, which refuses fields it does not know.

The settings of each room stand in it (``world.settings``, ``behavior.settings`` ...), and are
joined here.  A preset (``presets``) is a value of ``Config``; the command line overrides single
fields.  The defaults are DreamerV3's (Hafner et al. 2025, Nature; arXiv:2301.04104).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from pydantic import Field, model_validator

from wm_core.agents.settings import OptimConfig
from wm_core.behavior.settings import BehaviorConfig
from wm_core.contract.spec import Frozen
from wm_core.renamed import renewed
from wm_core.replay.settings import ReplayConfig
from wm_core.training.settings import EnvConfig, TrainConfig
from wm_core.world.settings import WorldConfig


class Config(Frozen):
    """All settings that decide a training run."""

    preset: str = Field("dreamer_v3", description="System to train; `wm presets` lists them.")
    size: str = Field("12m", description="Size of the preset, such as micro or paper.")
    seed: int = Field(0, ge=0, description="Seed of every random number of the run, from 0.")
    world: WorldConfig = WorldConfig()
    behavior: BehaviorConfig = BehaviorConfig()
    optim: OptimConfig = OptimConfig()
    replay: ReplayConfig = ReplayConfig()
    train: TrainConfig = TrainConfig()
    env: EnvConfig = EnvConfig()

    @model_validator(mode="before")
    @classmethod
    def _renewed(cls, values: Any) -> Any:
        return renewed(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _is_finite(self) -> Config:
        found = [f"{name} {value}" for name, value in _not_finite(self.model_dump())]
        if found:  # JSON, in which a run keeps its settings, has no such number
            raise ValueError(f"expected finite numbers, got {', '.join(found)}")
        return self

    @model_validator(mode="after")
    def _fits(self) -> Config:
        world, transformer, tokens = self.world, self.world.transformer, self.world.tokens
        if self.behavior.reads == "stoch" and world.recurrent:
            raise ValueError(
                "behavior.reads stoch needs a posterior q(z | e): choose another world.backbone "
                f"than {world.backbone}, whose posterior reads the past"
            )
        if self.behavior.reads == "feat" and tokens != "joint":
            raise ValueError(
                f"world.transformer.tokens {tokens} needs behavior.reads stoch: a robot gets no "
                "rewards while it acts, and does not imagine"
            )
        if world.balance.kind != "fixed" and self.optim.stages is not None:
            raise ValueError(
                f"world.balance.kind {world.balance.kind} needs all losses from the first update "
                f"on: leave optim.stages out, got {self.optim.stages}"
            )
        longest = max(self.replay.length, self.behavior.imag_horizon + 1)
        if tokens == "actions" and transformer.window < longest:
            raise ValueError(
                f"world.transformer.window {transformer.window}: with tokens actions it must hold "
                f"every step of replay.length and behavior.imag_horizon, {longest} tokens"
            )
        return self


def _not_finite(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The dotted names of the NaN and infinities in nested settings, with their values."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _not_finite(value, f"{prefix}{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield prefix + name, value
