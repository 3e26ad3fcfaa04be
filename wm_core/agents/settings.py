"""Settings of the optimisers; importable without torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wm_core.contract.spec import Frozen


class OptimConfig(Frozen):
    """LaProp behind adaptive gradient clipping, or Adam behind a global norm."""

    kind: Literal["laprop", "adam"] = Field(
        "laprop", description="Optimiser: laprop with adaptive clipping, or adam."
    )
    lr: float = Field(
        4e-5, gt=0, description="Learning rate; also of each part that has none of its own."
    )
    dynamics_lr: float | None = Field(
        None, gt=0, description="Learning rate of backbone, prior and heads; None takes lr."
    )
    actor_lr: float | None = Field(None, gt=0, description="Learning rate of the actor; None: lr.")
    critic_lr: float | None = Field(None, gt=0, description="Learning rate of critic; None: lr.")
    warmup: int = Field(1000, ge=0, description="Updates over which a part's rate rises from 0.")
    decay_after: int | None = Field(
        None,
        gt=0,
        description="Updates after which rates fall as 1 / sqrt(updates); None: they stay.",
    )
    agc: float = Field(
        0.3, gt=0, description="Adaptive clipping of laprop: gradient over weight norm."
    )
    agc_floor: float = Field(1e-3, gt=0, description="Smallest weight norm in adaptive clipping.")
    clip: float = Field(
        100.0, gt=0, description="Largest norm of the world model's gradient, for adam."
    )
    behavior_clip: float = Field(
        100.0, gt=0, description="Largest gradient norm of actor and critic."
    )
    decay: float = Field(
        0.0, ge=0, description="Decoupled weight decay of adam (AdamW), 0 for none."
    )
    decay_by_rate: bool = Field(
        True, description="Whether decay is times the learning rate (AdamW), or per update."
    )
    beta1: float = Field(
        0.9, ge=0, lt=1, description="Decay of the optimiser's momentum, below 1."
    )
    beta2: float = Field(
        0.999, ge=0, lt=1, description="Decay of the optimiser's mean square, below 1."
    )
    eps: float = Field(1e-20, gt=0, description="Term added to the optimiser's root mean square.")
    precision: Literal["auto", "float32", "conv_bfloat16", "bfloat16"] = Field(
        "auto", description="Number format of updates; auto takes what the device does well."
    )
    stages: tuple[int, int] | None = Field(
        None, description="Updates of encoding alone, then of dynamics alone; None: all at once."
    )
