"""Describes what a robot file says of safety; what it leaves out the node's parameters say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wm_core.robot.entries import Entry, TopicName


class Safety(Entry):
    """Describes when the robot must stop; a field that is left out is as the parameters say."""

    max_obs_age_s: float | None = Field(
        None, ge=-1, le=60, description="Oldest observation in seconds, by its stamp; -1: any."
    )
    max_gap_s: float | None = Field(
        None, ge=0, le=60, description="Seconds that a command is repeated without a new frame."
    )
    slow_camera: Literal["follow", "stop"] | None = Field(
        None, description="Whether a camera slower than the policy is followed or stops it."
    )
    frozen_frames: int | None = Field(
        None, ge=0, le=1000, description="Equal frames in a row that count as a frozen camera."
    )
    frozen_s: float | None = Field(
        None, ge=0, le=600, description="Seconds of one image, while moving, that mean frozen."
    )
    latch_safe: bool | None = Field(
        None, description="Whether a safe action lasts until the robot is rearmed."
    )
    emergency_stop_topic: TopicName | None = Field(
        None, description="Topic of std_msgs/Bool that stops the robot with true."
    )
    emergency_stop_timeout_s: float | None = Field(
        None,
        ge=0,
        le=60,
        description="Seconds of silence of that topic that stop it too; 0: none.",
    )
    takeover_timeout_s: float | None = Field(
        None, ge=0.01, le=60, description="Seconds that a takeover's last command lasts."
    )
    run_on_start: bool | None = Field(
        None, description="Whether the policy acts at once; if not, the service ~/run starts it."
    )
    run_s: float | None = Field(
        None, ge=0, le=1e6, description="Seconds that the policy acts at a time; 0: without end."
    )
    surprise_limit: float | None = Field(
        None, ge=-1, le=1e6, description="Surprise in nats that is too much; -1: any is allowed."
    )
    surprise_ticks: int | None = Field(
        None, ge=1, le=1000, description="Ticks of too much surprise in a row that count."
    )
    surprise_action: Literal["warn", "stop"] | None = Field(
        None, description="What too much surprise does: a warning, or a stop until rearmed."
    )
