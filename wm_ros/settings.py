"""Holds the settings of both nodes: a model for each part, joined for each node; no ROS.

The name of a field is the name of its ROS parameter; settings within settings have dotted names,
such as ``spool.max_bytes``.  Defaults, ranges and texts stand here, or with the parts of
``wm_core.link.robot``, and nowhere else; ``wm_ros.parameters.params`` turns them into parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from wm_core.contract.frozen import Frozen, ranged
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.live import LiveSettings
from wm_core.link.robot.policy_client import PolicyClientSettings
from wm_core.link.robot.spool import SpoolSettings
from wm_core.link.robot.upload_settings import UploaderSettings
from wm_ros.commands import COMMANDS, TWIST_FIELDS
from wm_ros.sensors.joint_states import FIELDS
from wm_ros.sensors.table import SENSORS

T = TypeVar("T")
LIVE = "live"
#: type of a field that may change while the node runs, by ``ros2 param set``: the part that owns
#: it has a method ``use(settings)``.  Every other field is read when the node is configured.
Live = Annotated[T, LIVE]

SafeKind = Literal["zero", "hold", "none", "posture"]
SwapMode = Literal["reinfer", "border"]


def one_of(default: Any, choices: Iterable[str], text: str) -> Any:
    """Make a field whose value, or whose every element, is one of ``choices``."""
    return Field(default, description=text, json_schema_extra={"choices": [*choices]})


def setting(default: Any, text: str) -> Any:
    """Make a field without a range."""
    return Field(default, description=text)


class NodeSettings(Frozen):
    """Holds what both nodes share."""

    robot_file: str = setting(
        "", "YAML file that describes the robot (wm robot check FILE); empty: the parameters do"
    )
    command_type: str = one_of("twist_stamped", COMMANDS, "Message that carries the command")
    twist_fields: tuple[str, ...] = one_of(
        ("linear.x", "angular.z"),
        TWIST_FIELDS,
        "Field of the twist (m/s, rad/s) that each element of the action drives",
    )
    seed: int = ranged(0, 0, 2**31 - 1, "Seed of every random draw of this node")
    log_level: Live[Literal["", "debug", "info", "warn", "error"]] = setting(
        "", "Least severity that is logged; empty: as --log-level says"
    )


class SafetySettings(Frozen):
    """Says when the robot stops, and how."""

    safe_action: Live[SafeKind] = setting(
        "zero",
        "What stops this robot: zero; hold, which repeats the last command; none, which sends "
        "nothing; or posture. Positions take no zero",
    )
    safe_posture: tuple[float, ...] = setting(
        (0.0,), "Command of safe_action posture, one number for all elements or one for each"
    )
    hold_s: float = ranged(
        0.0, 0, 3600, "Seconds that hold repeats a velocity or effort, then zero; 0: without end"
    )
    max_command: tuple[float, ...] = setting(
        (0.0,),
        "Largest magnitude of the command that a policy may ask for, in its units, one for all or "
        "each; 0: a careful one by unit, such as 2 m/s",
    )
    max_rate: tuple[float, ...] = setting(
        (0.0,),
        "Largest change of the command, in its units per second, one for all or each; 0: none. "
        "A safe zero is sent at once all the same",
    )
    max_jerk: tuple[float, ...] = setting(
        (0.0,),
        "Largest change of that rate, in units per second squared, one for all or each; 0: none",
    )
    max_obs_age_s: Live[float] = ranged(
        0.0,
        -1,
        60,
        "Oldest image in seconds, by its stamp; 0: as the policy's card says, at most 2; -1: any",
    )
    max_gap_s: Live[float] = ranged(
        0.0,
        0,
        60,
        "Seconds that a command is repeated without a new frame; 0: none, but between two frames "
        "of a slow camera, at most five periods and half a second",
    )
    slow_camera: Live[Literal["follow", "stop"]] = setting(
        "follow",
        "Whether a camera slower than the policy is followed, one decision per frame, or stops it",
    )
    frozen_s: Live[float] = ranged(
        1.0,
        0,
        600,
        "Seconds of the same image, while the robot is told to move, that count as a frozen "
        "camera; 0: no such check",
    )
    frozen_frames: Live[int] = ranged(
        0, 0, 1000, "Same images in a row that count as a frozen camera, moving or not; 0: none"
    )
    latch_safe: Live[bool] = setting(False, "Whether a safe action lasts until ~/rearm is called")
    surprise_limit: Live[float] = ranged(
        0.0, -1, 1e6, "Surprise in nats that is too much; 0: as the policy's card says; -1: any"
    )
    surprise_ticks: Live[int] = ranged(
        5, 1, 1000, "Ticks of too much surprise in a row that count"
    )
    surprise_action: Live[Literal["warn", "stop"]] = setting(
        "warn", "What too much surprise does: a warning, or a stop until ~/rearm"
    )


class OperatorSettings(Frozen):
    """Says how people stop the robot, drive it themselves, and let it run."""

    emergency_stop_topic: str = setting(
        "", "Topic of std_msgs/Bool that stops the robot with true; empty: ~/stop alone does"
    )
    emergency_stop_timeout_s: float = ranged(
        0.0, 0, 60, "Seconds of silence of that topic that stop the robot too; 0: no heartbeat"
    )
    takeover_topic: str = setting(
        "",
        "Topic of the command's message; what comes there goes out instead; empty: none",
    )
    takeover_timeout_s: float = ranged(
        0.5, 0.01, 60, "Seconds that the last command of a takeover lasts, then the policy acts"
    )
    run_on_start: bool = setting(
        True, "Whether the policy acts once the node is active; if not, ~/run starts it"
    )
    run_s: float = ranged(
        0.0, 0, 1e6, "Seconds that the policy acts from its start or ~/run on; 0: without end"
    )


class PilotSettings(Frozen):
    """Says how the robot explores."""

    exploration_noise: Live[float] = ranged(
        0.0,
        0,
        2,
        "Deviation of noise on the action in [-1, 1]; of choices the share taken at random, <= 1",
    )
    random_prefill: int = ranged(
        0, 0, 2**40, "Agent steps of random actions before a policy that has seen none acts"
    )
    random_hold: Live[int] = ranged(4, 1, 1000, "Ticks that one random action is held")


class RealtimeSettings(Frozen):
    """Says how the system schedules the control thread."""

    realtime_priority: int = ranged(
        0, 0, 99, "Priority of the control thread under SCHED_FIFO; 0: that of other programs"
    )
    cpu_affinity: tuple[int, ...] = setting(
        (-1,), "Numbers of the processors that the control thread runs on; -1: any"
    )
    warm_up: Live[Literal["auto", "on", "off"]] = setting(
        "off",
        "Whether the policy runs once more, unheard, just before a frame is due, so that its "
        "weights are at hand; it doubles the policy's work and did not help on a busy computer; "
        "auto: where it takes 0.3 ms or more",
    )


class SlotSettings(Frozen):
    """Says how policies are watched and swapped."""

    exploration: Live[Literal["auto", "sample", "mean"]] = setting(
        "auto",
        "Whether the policy's action is a draw or the mean; auto: a draw where the robot learns, "
        "which is where it has a trainer_url",
    )
    swap_mode: Live[SwapMode] = setting(
        "reinfer",
        "Whether a new policy infers its latent from history or waits for an episode",
    )
    history_s: float = ranged(2.0, 0.1, 60, "Seconds from which a new policy infers its latent")
    trial_s: Live[float] = ranged(
        10.0, 0, 3600, "Seconds after a swap within which a policy that fails is rolled back"
    )
    max_tolerance: Live[float] = ranged(
        0.0,
        0,
        1,
        "Largest deviation from its golden rollout that a new policy may have, whatever its card "
        "asks for, relative to an output's scale; 0: 1e-5, or 0.15 of an 8-bit one",
    )
    inference_deadline_s: Live[float] = ranged(
        0.0,
        -1,
        10,
        "Longest processor time of a policy's step in seconds; one that takes more is not taken, "
        "or gives way; 0: one period; -1: any",
    )
    policy_poll_s: Live[float] = ranged(
        0.25, 0.01, 3600, "Seconds between two looks for a new policy"
    )

    @property
    def acts_by_mean(self) -> bool:
        """Tell whether the policy's action is the mean of its distribution."""
        if self.exploration == "auto":
            return not getattr(self, "trainer_url", "")
        return self.exploration == "mean"


class StreamSettings(AccessSettings):
    """Says where experience goes and policies come from."""

    robot: str = setting("robot", "Name under which experience is stored: a-z, 0-9, _ and -")
    trainer_url: str = setting(
        "",
        "Address (https or http) of `wm serve`, or file:///folder, to which experience is copied; "
        "empty: no trainer",
    )
    token_file: str = setting("", "File with this robot's token for the trainer; empty: no token")
    channel: str = setting("main", "The trainer's line of policies that this robot follows")
    trusted_keys: str = setting(
        "", "File of the owner's public keys, by which policies must be signed; empty: none"
    )
    require_signature: Literal["auto", "always", "never"] = setting(
        "auto",
        "Whether unsigned policies are refused; auto: where keys are trusted, or the trainer is "
        "another machine",
    )
    record: bool = setting(True, "Whether experience is recorded at all")
    spool_dir: str = setting("", "Folder for experience that waits; empty: spool in state_dir")
    spool: SpoolSettings = SpoolSettings()
    upload: UploaderSettings = UploaderSettings()
    delivery: PolicyClientSettings = PolicyClientSettings()
    live: LiveSettings = LiveSettings()


class PolicySettings(
    NodeSettings,
    SafetySettings,
    OperatorSettings,
    PilotSettings,
    RealtimeSettings,
    SlotSettings,
    StreamSettings,
):
    """Holds all that can be set on the policy node, except for each sensor's type and topic."""

    autostart: bool = setting(True, "Whether the node configures and activates itself")
    policy_dir: str = setting(
        "", "Folder of a policy or of numbered versions; empty: the trainer's policies"
    )
    state_dir: str = setting(
        "", "Folder for the node's reports; empty: ~/.ros/wm_ros/<namespace>/<node>"
    )
    reward_required: bool = setting(True, "Whether a step is stored only with its reward message")
    sensors: tuple[str, ...] = Field(
        ("image", "joint_states"),
        min_length=1,
        description="Names of the sensors, best those of the inputs; the first sets the pace",
    )
    image_reliability: Literal["best_effort", "reliable"] = setting(
        "best_effort", "Reliability of the subscriptions to images"
    )
    period_s: float = ranged(0.0, 0, 10, "Seconds between two ticks; 0: as the policy's card says")
    idle_period_s: float = ranged(
        0.05, 0.001, 10, "Seconds between two safe actions without a policy"
    )
    frame_wait: float = ranged(0.7, 0, 0.9, "Share of a period that a tick waits for a late frame")
    base_frame: str = setting("base_link", "Frame of reference of the command")


class SensorSettings(Frozen):
    """Says where one sensor is heard."""

    type: str = one_of("camera", SENSORS, "Kind of this sensor, which decides its message")
    topic: str = setting(
        "", "Topic; empty: that of the kind, behind the sensor's name if it is taken"
    )
    joints: tuple[str, ...] = setting(
        (), "Joints in the policy's order, by name; empty: as the policy names them"
    )
    fields: tuple[str, ...] = one_of(
        (),
        FIELDS,
        "Read of every joint, one field after another; empty: as the policy's size says",
    )


class SimSettings(NodeSettings):
    """Holds all that can be set on the simulated robot."""

    task: str = setting(
        "", "Task of `wm tasks` or a Gymnasium id; empty: the robot file's robot, else seek"
    )
    task_kwargs: str = setting("{}", "JSON object of further arguments of the task")
    image_size: int = ranged(64, 8, 4096, "Height and width of the camera's image in pixels")
    proprio: bool = setting(False, "Whether the task's measurements are published as joint_states")
    rate_factor: float = ranged(1.0, 0.01, 1000, "Simulated seconds per second of wall time")
    publish_clock: bool = setting(False, "Whether /clock is published though rate_factor is 1")
    answer_wait_s: float = ranged(
        0.0,
        0,
        60,
        "Seconds that a frame waits for its command beyond its period; 0: none in real time, "
        "1 where time is simulated",
    )
    command_timeout_s: float = ranged(
        0.0, 0, 60, "Seconds without a command after which the robot stops; 0: two periods"
    )
    frame_id: str = setting("camera_optical", "Frame of reference of the images")
