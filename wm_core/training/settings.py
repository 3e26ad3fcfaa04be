"""Settings of the training loop; importable without torch."""

from __future__ import annotations

from pydantic import Field

from wm_core.contract.spec import Frozen


class TrainConfig(Frozen):
    """How long and how hard to train, and what is written while it does."""

    steps: int = Field(500_000, gt=0)  #: agent steps to collect in sim
    updates: int | None = Field(None, gt=0)  #: stop at so many; None: what data and ratio allow
    #: stop after so many minutes of this process's CPU time, all that it does included; with one
    #: thread, other work on the machine changes the wall time but not what a run gets
    minutes: float | None = Field(None, gt=0)
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
