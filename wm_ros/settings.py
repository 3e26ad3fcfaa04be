"""The settings of both nodes: a model for each part, and each node's models joined; no ROS.

The name of a field is the name of its ROS parameter; settings within settings have dotted names,
such as ``spool.max_bytes``.  Defaults, ranges and texts stand here (and beside the parts of
``wm_core.link.robot``) and nowhere else; ``wm_ros.params`` makes parameters of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from wm_core.contract.spec import Frozen
from wm_core.link.robot.policy_client import PolicyClientSettings
from wm_core.link.robot.spool import SpoolSettings
from wm_core.link.robot.uploader import UploaderSettings
from wm_ros.commands import COMMANDS, TWIST_FIELDS
from wm_ros.sensors.table import SENSORS

SafeKind = Literal["zero", "hold", "none"]
SwapMode = Literal["reinfer", "border"]


def one_of(default: Any, choices: Sequence[str], description: str) -> Any:
    """A field whose value, or whose every element, is one of ``choices``."""
    return Field(default, description=description, json_schema_extra={"choices": list(choices)})


class NodeSettings(Frozen):
    """What both nodes share."""

    command_type: str = one_of(
        "twist_stamped", tuple(COMMANDS), "Message that carries the command"
    )
    twist_fields: tuple[str, ...] = one_of(
        ("linear.x", "angular.z"),
        TWIST_FIELDS,
        "Field of the twist (m/s, rad/s) that each element of the action drives",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every random draw of this node")


class SafetySettings(Frozen):
    """When the robot stops, and how."""

    safe_action: SafeKind = Field(
        "zero", description="Command that stops this robot: zeros, the last one, or none at all"
    )
    max_obs_age_s: float = Field(
        0.0,
        ge=-1,
        le=60,
        description="Oldest image in seconds, by its stamp; 0: as the policy's card says; -1: any",
    )
    max_gap_s: float = Field(
        0.0,
        ge=0,
        le=60,
        description="Seconds that the last command is repeated without a new frame; 0: one period",
    )
    frozen_frames: int = Field(
        0,
        ge=0,
        le=1000,
        description="Equal frames in a row that count as a frozen camera; 0: no such check",
    )
    latch_safe: bool = Field(
        False, description="Whether a safe action lasts until ~/rearm is called"
    )


class PilotSettings(Frozen):
    """How the robot explores."""

    exploration_noise: float = Field(
        0.0,
        ge=0,
        le=2,
        description="Deviation of normal noise on the action in [-1, 1]; "
        "of choices: how often a random one is taken",
    )
    random_prefill: int = Field(
        0,
        ge=0,
        le=2**40,
        description="Agent steps of uniform random actions before the policy acts, "
        "less those that the first policy was trained on",
    )
    random_hold: int = Field(4, ge=1, le=1000, description="Ticks that one random action is held")


class SlotSettings(Frozen):
    """How policies are watched and swapped."""

    exploration: Literal["sample", "mean"] = Field(
        "sample", description="Whether the policy's action is a draw or the mean"
    )
    swap_mode: SwapMode = Field(
        "reinfer",
        description="How a new policy begins: with a latent inferred from the last seconds, "
        "or at the next border of an episode",
    )
    history_s: float = Field(
        2.0, ge=0.1, le=60, description="Seconds from which a new policy infers its latent"
    )
    policy_poll_s: float = Field(
        0.25, ge=0.01, le=3600, description="Seconds between two looks for a new policy"
    )


class StreamSettings(Frozen):
    """Where experience goes and policies come from."""

    robot: str = Field(
        "robot", description="Name under which experience is stored: a-z, 0-9, _ and -"
    )
    trainer_url: str = Field(
        "", description="Address (http or https) of `wm serve`; empty: experience stays here"
    )
    token_file: str = Field(
        "", description="File with this robot's token for the trainer; empty: no token"
    )
    channel: str = Field("main", description="Line of policies that this robot follows")
    record: bool = Field(True, description="Whether experience is recorded at all")
    spool_dir: str = Field(
        "", description="Folder for experience that waits; empty: <state_dir>/spool"
    )
    spool: SpoolSettings = SpoolSettings()
    upload: UploaderSettings = UploaderSettings()
    delivery: PolicyClientSettings = PolicyClientSettings()


class PolicySettings(NodeSettings, SafetySettings, PilotSettings, SlotSettings, StreamSettings):
    """Everything that can be set on the policy node, except for each sensor's topic and type."""

    autostart: bool = Field(
        True, description="Whether the node configures and activates itself, without a manager"
    )
    policy_dir: str = Field(
        "", description="Folder of a policy or of numbered versions; empty: the trainer's policies"
    )
    state_dir: str = Field(
        "", description="Folder for ticks.json and the like; empty: ~/.ros/wm_ros/<name>"
    )
    reward_required: bool = Field(
        True, description="Whether a step is stored only with a reward message of its stamp"
    )
    sensors: tuple[str, ...] = Field(
        ("image", "joint_states"),
        min_length=1,
        description="Names of the sensors; one named like an input of the policy feeds it; "
        "the first sets the pace",
    )
    image_reliability: Literal["best_effort", "reliable"] = Field(
        "best_effort", description="Reliability of the subscriptions to images"
    )
    period_s: float = Field(
        0.0, ge=0, le=10, description="Seconds between two ticks; 0: as the policy's card says"
    )
    idle_period_s: float = Field(
        0.05, ge=0.001, le=10, description="Seconds between two safe actions without a policy"
    )
    frame_wait: float = Field(
        0.75, ge=0, le=0.9, description="Share of a period that a tick waits for a late frame"
    )
    base_frame: str = Field("base_link", description="Frame of reference of the command")

    def state_folder(self, node: str) -> Path:
        """Where the node of this name keeps its files."""
        home = Path(os.environ.get("ROS_HOME", "~/.ros"))
        return Path(self.state_dir or home / "wm_ros" / node).expanduser()


class SensorSettings(Frozen):
    """Where one sensor is heard."""

    type: str = one_of("camera", tuple(SENSORS), "Kind of this sensor, which decides its message")
    topic: str = Field(
        "",
        description="Topic of this sensor; empty: that of its kind, "
        "behind <sensor>/ for all but the first of a kind",
    )


class SimSettings(NodeSettings):
    """Everything that can be set on the simulated robot."""

    task: str = Field(
        "seek", description="Task of `wm tasks`, or another Gymnasium id: CartPole-v1@pixels"
    )
    task_kwargs: str = Field("{}", description="JSON object of further arguments of the task")
    image_size: int = Field(
        64, ge=8, le=4096, description="Height and width of the camera's image in pixels"
    )
    proprio: bool = Field(False, description="Whether the task's measurements are joint_states")
    rate_factor: float = Field(
        1.0, ge=0.01, le=1000, description="Simulated seconds per second of wall time"
    )
    publish_clock: bool = Field(
        False, description="Whether /clock is published although rate_factor is 1"
    )
    answer_wait_s: float = Field(
        0.0,
        ge=0,
        le=60,
        description="Seconds that a frame waits for its command beyond its period; "
        "0: none, or one where time is simulated and may wait",
    )
    command_timeout_s: float = Field(
        0.0,
        ge=0,
        le=60,
        description="Seconds without a command after which the robot stops; 0: two periods",
    )
    frame_id: str = Field("camera_optical", description="Frame of reference of the images")
