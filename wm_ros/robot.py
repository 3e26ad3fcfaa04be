"""Joins what parameters and robot file say into one description of the robot; no ROS.

With a robot file the sensors, commands, safe actions, reward and episodes are the file's.  A
parameter that was set to something else is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wm_core.contract.errors import SettingsError
from wm_core.contract.inputs import CodecRule
from wm_core.contract.spec import Spec
from wm_core.robot import RobotFile
from wm_core.robot.channels import Channel
from wm_core.robot.episode import EpisodeRules, NamedNumber, Reward
from wm_core.robot.fitting import check_fits
from wm_core.robot.parts import SensorPart
from wm_ros.settings import PolicySettings, SensorSettings

#: parameters whose part the file describes in its own way -> the field that says it there
REPLACED: Mapping[str, str] = {
    "sensors": "observations",
    "command_type": "actions[].type",
    "twist_fields": "actions[].fields",
    "safe_action": "actions[].safe",
    "safe_posture": "actions[].safe",
    "hold_s": "actions[].hold_s",
    "max_command": "actions[].low and high",
    "max_rate": "actions[].max_rate",
    "max_jerk": "actions[].max_jerk",
    "takeover_topic": "actions[].takeover",
    "base_frame": "actions[].frame",
}


@dataclass(frozen=True, slots=True)
class Robot:
    """Describes the robot for the node, whether a file or parameters say it."""

    settings: PolicySettings  #: with what the file says in its place
    file: RobotFile | None = None  #: None: the parameters say everything
    sensors: Mapping[str, SensorSettings] = field(default_factory=dict)  #: empty with a file
    parameters: PolicySettings | None = None  #: with a file: as the parameters alone have them

    @property
    def observations(self) -> Mapping[str, tuple[SensorPart, ...]]:
        """List the parts of each input by the file; none without one."""
        return {} if self.file is None else self.file.observations

    @property
    def codecs(self) -> Mapping[str, CodecRule]:
        """Say how cameras are recorded of which the file says it."""
        return {} if self.file is None else self.file.codecs

    @property
    def channels(self) -> tuple[Channel, ...]:
        """List the channels of the action by the file; none without one."""
        return () if self.file is None else self.file.actions

    @property
    def values(self) -> Mapping[str, NamedNumber]:
        """List the numbers that reward and conditions read."""
        return {} if self.file is None else self.file.values

    @property
    def reward(self) -> Reward:
        """Say what the robot is rewarded for: messages on ``reward``, unless the file says."""
        if self.file is not None and self.file.reward is not None:
            return self.file.reward
        return Reward(topic="reward", required=self.settings.reward_required)

    @property
    def episode(self) -> EpisodeRules:
        """Say when episodes end and begin."""
        return EpisodeRules() if self.file is None else self.file.episode

    @property
    def tolerance_s(self) -> float | None:
        """Give the farthest distance of a message from the pace's stamp; None: one period."""
        return None if self.file is None else self.file.tolerance_s

    def changed(self, parameters: PolicySettings) -> PolicySettings:
        """Give the settings after parameters were changed while the node runs.

        Raises:
            SettingsError: for a change of what the file states, or says in its own way.
        """
        if self.file is None or self.parameters is None:
            return parameters
        stated = _stated(self.file)
        for name, field_ in REPLACED.items():
            if getattr(parameters, name) != getattr(self.parameters, name):
                raise SettingsError(
                    f"{name!r} has no effect with a robot file: its place is {field_} in "
                    f"{parameters.robot_file}, whose default holds where that is left out; write "
                    "it there and start the node anew"
                )
        for name in stated:
            if getattr(parameters, name) != getattr(self.parameters, name):
                raise SettingsError(
                    f"{name!r} is stated by {parameters.robot_file}, which is read when the node "
                    "is configured: change it there and start the node anew"
                )
        return parameters.model_copy(update=stated)

    def check(self, spec: Spec) -> None:
        """Raise ``SpecMismatch`` for a policy that does not fit the file."""
        if self.file is not None:
            check_fits(self.file, spec)


def robot_of(
    settings: PolicySettings,
    sensors: Mapping[str, SensorSettings],
    given: Mapping[str, Any] | None = None,
) -> Robot:
    """Describe the robot of these settings.

    Args:
        settings: of the node; ``robot_file`` names the file.
        sensors: where each sensor is heard, where there is no file.
        given: parameters that were set by a person, by name; one that says something else than
            the file, and that is not merely set to its default, is refused.

    Raises:
        SettingsError: for a file that is wrong, or a parameter that contradicts it.
    """
    if not settings.robot_file:
        return Robot(settings, sensors=sensors)
    file = RobotFile.load(settings.robot_file)
    stated = _stated(file)
    defaults = PolicySettings()
    for name, value in (given or {}).items():
        wanted = tuple(value) if isinstance(value, list) else value
        if name in REPLACED and wanted != getattr(defaults, name):
            raise SettingsError(
                f"parameter {name} is {value!r}, but {settings.robot_file} describes the robot: "
                f"leave the parameter out and see {REPLACED[name]} in the file"
            )
        if name in stated and wanted not in (stated[name], getattr(defaults, name)):
            raise SettingsError(
                f"parameter {name} is {value!r}, but {settings.robot_file} says "
                f"{stated[name]!r}: set one of them only"
            )
    return Robot(settings.model_copy(update=stated), file, parameters=settings)


def _stated(file: RobotFile) -> dict[str, Any]:
    """List the parameters whose values the file states."""
    stated: dict[str, Any] = {
        name: value
        for name, value in file.safety
        if value is not None and name in PolicySettings.model_fields
    }
    if "robot" in file.model_fields_set:
        stated["robot"] = file.robot
    if file.rate_hz is not None:
        stated["period_s"] = 1.0 / file.rate_hz
    if file.reward is not None:
        stated["reward_required"] = file.reward.required
    return stated
