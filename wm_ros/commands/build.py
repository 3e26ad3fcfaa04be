"""Makes a robot's command from its file, or from the node's parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wm_ros.commands.channels import CommandChannel, CommandSet, SafeAction, check_stop
from wm_ros.commands.from_file import commands_of_channels
from wm_ros.commands.messages import COMMANDS

if TYPE_CHECKING:
    from wm_ros.robot import Robot
    from wm_ros.settings import PolicySettings


def commands_of(robot: Robot) -> CommandSet:
    """Make the command of a robot as its file says, or else its parameters.

    Raises:
        SettingsError: for a message that is not installed.
    """
    if robot.file is None:
        return commands_of_parameters(robot.settings)
    return commands_of_channels(robot.channels)


def commands_of_parameters(s: PolicySettings) -> CommandSet:
    """Make the command of one channel that the parameters describe.

    Raises:
        SpecMismatch: for a safe action that would move the robot, whatever its policy.
    """
    command = COMMANDS[s.command_type](s.twist_fields)
    safe: SafeAction = s.safe_posture if s.safe_action == "posture" else s.safe_action
    channel = CommandChannel(
        command,
        safe=safe,
        hold_s=s.hold_s,
        most=_limits(s.max_command),
        max_rate=_limits(s.max_rate),
        max_jerk=_limits(s.max_jerk),
        takeover=s.takeover_topic,
    )
    check_stop(channel, command.motion)
    return CommandSet([channel])


def _limits(stated: tuple[float, ...]) -> tuple[float, ...]:
    """Read limits, of which 0 is none."""
    bounds = tuple(value if value > 0 else float("inf") for value in stated)
    return () if all(bound == float("inf") for bound in bounds) else bounds
