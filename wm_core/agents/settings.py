"""Settings of the optimisers; importable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wm_core.contract.spec import Frozen


class OptimConfig(Frozen):
    """LaProp behind adaptive gradient clipping, or Adam behind a global norm."""

    kind: Literal["laprop", "adam"] = "laprop"
    lr: float = Field(4e-5, gt=0)  #: of the world model, and of whatever has none of its own
    dynamics_lr: float | None = Field(None, gt=0)  #: of backbone, prior and heads
    actor_lr: float | None = Field(None, gt=0)
    critic_lr: float | None = Field(None, gt=0)
    warmup: int = Field(1000, ge=0)  #: updates of linear warm-up
    agc: float = 0.3  #: laprop
    agc_floor: float = 1e-3  #: laprop
    clip: float = 100.0  #: adam: largest norm of the world model's gradient
    behavior_clip: float = 100.0  #: adam: the same of the actor's and of the critic's
    decay: float = 0.0  #: adam: weight decay, apart from the gradient
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-20
    precision: Literal["auto", "float32", "conv_bfloat16", "bfloat16"] = "auto"
    stages: tuple[int, int] | None = None  #: updates of representation alone, then dynamics alone
