"""Settings of the training loop and of its environments; importable without torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, JsonValue

from wm_core.contract.spec import Frozen


class EnvConfig(Frozen):
    """How the environment of a task is made; a run and its policies keep it.

    A setting that has no effect on the task is refused, never ignored.
    """

    kwargs: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Keywords of its constructor: JSON object, or NAME=VALUE words",
    )
    time_limit: int | None = Field(
        None, gt=0, description="Agent steps that end an episode; None: the task's own limit"
    )
    action_repeat: int | None = Field(
        None,
        gt=0,
        description="Control steps that an action is held for; None: what is usual for the task",
    )
    image_size: int = Field(
        64, ge=8, le=2048, description="Height and width that images are brought to, pixels"
    )
    fit: Literal["crop", "pad", "squeeze"] = Field(
        "crop", description="How an image that is not square becomes so"
    )
    proprio: bool = Field(
        False, description="Measurements beside the image, in this project's own tasks"
    )
    sticky: float = Field(
        0.0, ge=0, lt=1, description="Probability that the action before is repeated instead"
    )
    gray: bool = Field(False, description="One channel in place of colours, in every image")
    life_loss: bool = Field(False, description="Losing a life ends the episode, in Atari games")
    step_timeout_s: float | None = Field(
        None, gt=0, description="Most seconds of one step, of environments in processes"
    )

    @property
    def changed(self) -> dict[str, Any]:
        """Name the settings that are not the defaults, with their values."""
        return self.model_dump(mode="json", exclude_defaults=True)


NoiseKind = Literal["white", "pink"]  #: drawn anew at every step, or correlated over all times


class ExploreConfig(Frozen):
    """How the random part of collected actions goes on from step to step."""

    hold: int = Field(
        1, gt=0, description="Agent steps that each random action of the prefill is held for"
    )
    prefill_noise: NoiseKind = Field(
        "white", description="Random actions of the prefill: white, each by itself, or pink"
    )
    policy_noise: NoiseKind = Field(
        "white", description="Draws of the policy's collected actions: white or pink"
    )


class TrainConfig(Frozen):
    """How long and how hard to train, and what is written meanwhile."""

    steps: int = Field(500_000, gt=0, description="Agent steps to collect in simulation")
    updates: int | None = Field(None, gt=0, description="Updates to stop after; None: no limit")
    minutes: float | None = Field(
        None, gt=0, description="Most minutes of CPU time; None: no limit"
    )
    envs: int = Field(1, gt=0, description="Environments of each process that act side by side")
    env_processes: bool = Field(
        False, description="Let each environment act in a process of its own"
    )
    collectors: int = Field(
        0, ge=0, description="Processes that collect beside the learner; 0: they take turns"
    )
    prefill: int = Field(1000, ge=0, description="Agent steps to collect before the first update")
    explore: ExploreConfig = ExploreConfig()
    burst: int | None = Field(
        None,
        ge=0,
        description="Most updates that the prefill allows; None: as many as other steps do",
    )
    give_up_steps: int = Field(
        10_000, gt=0, description="Steps collected without a window to learn from before it stops"
    )
    wait_minutes: float | None = Field(
        None, gt=0, description="Minutes to wait for robots that send nothing; None: no limit"
    )
    replay_ratio: float = Field(512.0, gt=0, description="Most replayed steps per collected step")
    policy: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether a policy is learnt; auto: unless a finished store has no rewards",
    )
    graph: Literal["off", "auto"] = Field(
        "off", description="Replay updates as one CUDA graph: auto, on GPUs where possible, or off"
    )
    publish_every: int = Field(200, ge=50, description="Updates between two published policies")
    checkpoint_every_s: float = Field(120.0, gt=0, description="Seconds between two checkpoints")
    checkpoint_latents_bytes: int = Field(
        256_000_000, ge=0, description="Bytes above which checkpoints leave out replay latents"
    )
    keep_checkpoints: int = Field(2, gt=0, description="Newest checkpoints to keep on the disk")
    keep_policies: int = Field(5, gt=0, description="Newest published policies to keep")
    log_every: int = Field(20, gt=0, description="Updates between two lines of metrics")
    video_every: int = Field(2000, ge=0, description="Updates between two videos; 0: no videos")
    eval_every: int = Field(10_000, ge=0, description="Agent steps between evaluations; 0: none")
    eval_episodes: int = Field(5, gt=0, description="Episodes of each evaluation, always the same")
    eval_max_steps: int = Field(
        10_000, gt=0, description="Agent steps after which an evaluation cuts an episode"
    )
