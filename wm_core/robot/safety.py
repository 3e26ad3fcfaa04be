"""Describes what a robot file says of safety; what it leaves out the node's parameters say."""

from __future__ import annotations

from pydantic import Field

from wm_core.robot.entries import Entry


class Safety(Entry):
    """Describes when the robot must stop; a field that is left out is as the parameters say."""

    max_obs_age_s: float | None = Field(
        None, ge=-1, le=60, description="Oldest observation in seconds, by its stamp; -1: any."
    )
    max_gap_s: float | None = Field(
        None, ge=0, le=60, description="Seconds that a command is repeated without a new frame."
    )
    frozen_frames: int | None = Field(
        None, ge=0, le=1000, description="Equal frames in a row that count as a frozen camera."
    )
    latch_safe: bool | None = Field(
        None, description="Whether a safe action lasts until the robot is rearmed."
    )
