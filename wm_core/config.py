"""Typed, frozen, strict settings: every default stands here once.

A preset (``presets.py``) is a value of ``Config``; the command line overrides single fields.
Numbers without another source are DreamerV3's (Hafner et al. 2025, Nature; arXiv:2301.04104).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wm_core.contract.spec import Frozen


class WorldConfig(Frozen):
    """The world model: encoder, RSSM, decoder and heads."""

    encoder: Literal["k5pool", "k4s2"] = "k5pool"  #: V3's convolutions, or strided ones (cheaper)
    depth: int = Field(16, gt=0)  #: convolution channels at the first level
    deter: int = Field(2048, gt=0)  #: D
    hidden: int = Field(256, gt=0)  #: width of the projections into the recurrence
    groups: int = Field(32, gt=0)  #: S
    classes: int = Field(16, gt=1, le=256)  #: K
    blocks: int = Field(8, gt=0)  #: blocks of the block-diagonal GRU
    units: int = Field(256, gt=0)  #: U, width of every MLP
    prior_layers: int = Field(2, gt=0)
    head_layers: int = Field(1, gt=0)  #: of the reward and cont heads
    vector_layers: int = Field(3, gt=0)  #: of a vector's encoder and decoder
    unimix: float = Field(0.01, ge=0, lt=1)
    bins: int = Field(255, gt=2)  #: of the two-hot heads
    free_nats: float = Field(1.0, ge=0)
    recon_scale: float = 1.0
    recon_share: float = Field(1.0, gt=0, le=1)  #: of a batch's frames that are reconstructed
    reward_scale: float = 1.0
    cont_scale: float = 1.0
    dyn_scale: float = 1.0
    rep_scale: float = 0.1
    discount_horizon: float = Field(333.0, gt=1)  #: agent steps; 1 - 1/333 is folded into cont

    @model_validator(mode="after")
    def _fits(self) -> WorldConfig:
        if self.deter % self.blocks:
            raise ValueError(f"deter {self.deter} is no multiple of {self.blocks} blocks")
        if self.bins % 2 == 0:
            raise ValueError(f"expected an odd number of bins, got {self.bins}")
        return self


class BehaviorConfig(Frozen):
    """The actor and critic that are trained in imagination."""

    imag_horizon: int = Field(15, gt=0)  #: T_imag
    imag_starts: int | None = None  #: imagined starts per update; None: every posterior
    lam: float = Field(0.95, ge=0, le=1)
    entropy: float = 3e-4
    actor_layers: int = 3
    critic_layers: int = 3
    min_std: float = 0.1
    max_std: float = 1.0
    slow_rate: float = 0.02  #: of the slow critic's average
    slow_scale: float = 1.0  #: of the pull towards the slow critic
    policy_scale: float = 1.0
    value_scale: float = 1.0
    replay_value_scale: float = 0.3
    return_rate: float = 0.01  #: of the percentile average
    return_low: float = 0.05
    return_high: float = 0.95
    return_limit: float = 1.0  #: returns are never scaled up


class OptimConfig(Frozen):
    """LaProp behind adaptive gradient clipping."""

    lr: float = Field(4e-5, gt=0)
    warmup: int = Field(1000, ge=0)  #: updates of linear warm-up
    agc: float = 0.3
    agc_floor: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-20
    precision: Literal["auto", "float32", "conv_bfloat16", "bfloat16"] = "auto"


class ReplayConfig(Frozen):
    """How experience is kept and drawn."""

    batch: int = Field(16, gt=0)  #: B
    length: int = Field(64, gt=1)  #: T
    cache_bytes: int = Field(1_000_000_000, ge=0)  #: decoded images kept in memory
    store_max_bytes: int = Field(50_000_000_000, gt=0)  #: on disk; the oldest go first
    latents: int = Field(1_000_000, ge=0)  #: steps whose latents the learner remembers
    online_queue: bool = True  #: train once on each new window, freshest first


class TrainConfig(Frozen):
    """How long and how hard to train, and what is written while it does."""

    steps: int = Field(500_000, gt=0)  #: agent steps to collect in sim
    updates: int | None = Field(None, gt=0)  #: stop at so many; None: what data and ratio allow
    envs: int = Field(1, gt=0)  #: environments that act side by side
    prefill: int = Field(1000, ge=0)  #: agent steps before the first update, random ones in sim
    replay_ratio: float = Field(512.0, gt=0)  #: replayed agent steps per collected one, at most
    publish_every: int = Field(200, ge=50)  #: updates between published policies
    checkpoint_every_s: float = Field(120.0, gt=0)
    checkpoint_latents_bytes: int = Field(256_000_000, ge=0)  #: a larger cache is left out
    keep_checkpoints: int = Field(2, gt=0)
    keep_policies: int = Field(5, gt=0)
    log_every: int = Field(20, gt=0)  #: updates between metric lines
    video_every: int = Field(2000, ge=0)  #: updates between films, one at the end beside; 0: none
    eval_every: int = Field(10_000, ge=0)  #: agent steps between evaluations in sim; 0: never
    eval_episodes: int = Field(5, gt=0)


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
