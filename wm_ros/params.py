"""Every parameter of the two nodes: default, range and what it means, once.

The tables hold no ROS types, so that launch files and their YAML can be checked without ROS.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wm_core.contract.errors import SettingsError, nearest

if TYPE_CHECKING:
    from rclpy.node import Node

Value = bool | int | float | str | list[str]


@dataclass(frozen=True, slots=True)
class Param:
    """One parameter."""

    name: str
    default: Value
    text: str
    low: float | None = None  #: with ``high`` the range of a number, both included
    high: float | None = None
    choices: tuple[str, ...] = ()  #: that the word, or each word of a list, is one of


COMMON = (
    Param(
        "command_type",
        "twist_stamped",
        "message of the command",
        choices=("twist_stamped", "twist", "joint", "index"),
    ),
    Param(
        "twist_fields",
        ["linear.x", "angular.z"],
        "field of the twist (m/s, rad/s) that each element of the action drives",
        choices=tuple(f"{part}.{axis}" for part in ("linear", "angular") for axis in "xyz"),
    ),
    Param("seed", 0, "of every random draw of this node", 0, 2**31 - 1),
)

POLICY = (
    *COMMON,
    Param("autostart", True, "configure and activate without a lifecycle manager"),
    Param("robot", "robot", "name under which experience is stored: a-z, 0-9, _ and -"),
    Param("policy_dir", "", "folder of a policy or of numbered versions; empty: the trainer's"),
    Param("trainer_url", "", "http(s) address of `wm serve`; empty: spool only, no new policies"),
    Param("token_file", "", "file with this robot's token for the trainer; empty: none"),
    Param("channel", "main", "the trainer's line of policies that this robot follows"),
    Param("state_dir", "", "folder for ticks.json and the like; empty: ~/.ros/wm_ros/<name>"),
    Param("spool_dir", "", "folder for experience that waits; empty: <state_dir>/spool"),
    Param("record", True, "whether experience is recorded"),
    Param("spool_max_bytes", 2_000_000_000, "bound of the spool in bytes", 1_000_000, 2**62),
    Param("seal_steps", 64, "steps after which a chunk of experience is sealed", 1, 4096),
    Param("seal_s", 2.0, "seconds after which a chunk of experience is sealed", 0.1, 3600.0),
    Param("reward_required", True, "without reward and flags of its stamp a step is not stored"),
    Param(
        "image_reliability", "best_effort", "of the camera", choices=("best_effort", "reliable")
    ),
    Param("period_s", 0.0, "seconds between two ticks; 0: what the policy's card says", 0.0, 10.0),
    Param("idle_period_s", 0.05, "seconds between two safe actions without a policy", 0.001, 10.0),
    Param("frame_wait", 0.75, "share of a period that a tick waits for a late frame", 0.0, 0.9),
    Param("max_obs_age_s", 0.0, "oldest image by its stamp; 0: as the card says; -1: any", -1, 60),
    Param("max_gap_s", 0.0, "repeat the command so long without a new frame; 0: a period", 0, 60),
    Param(
        "frozen_frames", 0, "equal frames in a row that count as a frozen camera; 0: off", 0, 1000
    ),
    Param("safe_action", "zero", "what stops this robot", choices=("zero", "hold", "none")),
    Param("latch_safe", False, "after a safe action stay safe until ~/rearm is called"),
    Param("exploration", "sample", "the action's mean or a draw", choices=("mean", "sample")),
    Param(
        "exploration_noise",
        0.0,
        "deviation of normal noise on the action in [-1, 1]; of choices: how often a random one",
        0.0,
        2.0,
    ),
    Param(
        "random_prefill", 0, "agent steps of uniform random actions before the policy", 0, 2**40
    ),
    Param("random_hold", 4, "ticks that one random action is held", 1, 1000),
    Param("swap_mode", "reinfer", "how a new policy begins", choices=("reinfer", "border")),
    Param("history_s", 2.0, "seconds from which a new policy infers its latent", 0.1, 60.0),
    Param("base_frame", "base_link", "frame of the command"),
)

SIM = (
    *COMMON,
    Param("task", "seek", "task of `wm tasks`, or another Gymnasium id: CartPole-v1@pixels"),
    Param("task_kwargs", "{}", "JSON object of further arguments of the task"),
    Param("image_size", 64, "height and width of the camera's image in pixels", 8, 4096),
    Param("proprio", False, "publish joint_states"),
    Param("rate_factor", 1.0, "simulated seconds per second", 0.01, 1000.0),
    Param("publish_clock", False, "publish /clock although rate_factor is 1"),
    Param(
        "answer_wait_s",
        0.0,
        "seconds that a frame waits for its command beyond its period; "
        "0: none, or one where time is simulated and may wait",
        0,
        60,
    ),
    Param("command_timeout_s", 0.0, "stop after so long without a command; 0: two periods", 0, 60),
    Param("frame_id", "camera_optical", "frame of the images"),
)


#: parameters that ROS itself gives to every node
_OF_ROS = ("use_sim_time", "start_type_description_service", "qos_overrides.")


def _refuse_unknown(given: Iterable[str]) -> None:
    """Raise ``SettingsError`` for a name that neither node has: ROS passes over it in silence."""
    known = [param.name for param in (*POLICY, *SIM)]
    for name in given:
        if name not in known and not name.startswith(_OF_ROS):
            raise SettingsError(nearest(name, known, what="parameter"))


def declare(node: Node, table: tuple[Param, ...]) -> dict[str, Any]:
    """Declare every parameter of ``table`` on ``node``, descriptors and ranges included.

    Raises:
        SettingsError: for a parameter that was given and does not exist, or has no such choice.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    _refuse_unknown(node._parameter_overrides)
    for param in table:
        descriptor = ParameterDescriptor(description=param.text)
        if param.choices:
            descriptor.additional_constraints = "one of: " + ", ".join(param.choices)
        if param.low is not None and param.high is not None:
            if isinstance(param.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(param.low), to_value=float(param.high))
                ]
            else:
                descriptor.integer_range = [
                    IntegerRange(from_value=int(param.low), to_value=int(param.high))
                ]
        node.declare_parameter(param.name, param.default, descriptor)
    return read(node, table)


def read(node: Node, table: tuple[Param, ...]) -> dict[str, Any]:
    """The present value of every parameter of ``table``.

    Raises:
        SettingsError: for a word that is none of a parameter's choices.
    """
    values: dict[str, Any] = {}
    for param in table:
        value = node.get_parameter(param.name).value
        for word in value if isinstance(value, list) else [value]:
            if param.choices and word not in param.choices:
                raise SettingsError(nearest(str(word), param.choices, what=param.name))
        values[param.name] = value
    return values
