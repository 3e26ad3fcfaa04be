"""The settings of a whole run: typed, frozen and strict.

Each part's own settings stand beside the part (``world.settings``, ``behavior.settings`` ...).
A preset (``presets``) is a value of ``Config``; the command line overrides single fields.  The
defaults are DreamerV3's (Hafner et al. 2025, Nature; arXiv:2301.04104) unless said otherwise.
"""

from __future__ import annotations

from pydantic import model_validator

from wm_core.agents.settings import OptimConfig
from wm_core.behavior.settings import BehaviorConfig
from wm_core.contract.spec import Frozen
from wm_core.replay.settings import ReplayConfig
from wm_core.training.settings import TrainConfig
from wm_core.world.settings import WorldConfig


class Config(Frozen):
    """Everything that decides a training run."""

    preset: str = "dreamer_v3"
    size: str = "12m"
    seed: int = 0
    world: WorldConfig = WorldConfig()
    behavior: BehaviorConfig = BehaviorConfig()
    optim: OptimConfig = OptimConfig()
    replay: ReplayConfig = ReplayConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits(self) -> Config:
        world, transformer, tokens = self.world, self.world.transformer, self.world.tokens
        if self.behavior.reads == "stoch" and world.backbone == "gru":
            raise ValueError("behavior.reads stoch wants q(z | e): not a gru's posterior")
        if self.behavior.reads == "feat" and tokens != "joint":
            raise ValueError(
                f"world.transformer.tokens {tokens} wants behavior.reads stoch: a robot that acts "
                "knows no rewards, and has no dream to begin"
            )
        longest = max(self.replay.length, self.behavior.imag_horizon + 1)
        if tokens == "actions" and transformer.window < longest:
            raise ValueError(
                f"world.transformer.window {transformer.window}: with tokens actions it must hold "
                f"a whole window and a whole dream, {longest} tokens"
            )
        return self
