"""Makes the channels that a robot file describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wm_core.contract.errors import SettingsError
from wm_core.robot.channels import (
    AckermannChannel,
    Channel,
    GripperChannel,
    JointStateChannel,
    JointTrajectoryChannel,
    MultiArrayChannel,
    TwistChannel,
)
from wm_ros.commands.channels import CommandChannel, CommandSet
from wm_ros.commands.command import Command
from wm_ros.commands.messages import (
    ACKERMANN_FIELDS,
    Ackermann,
    Joint,
    JointPosition,
    JointTrajectory,
    JointVelocity,
    MultiArray,
    Twist,
    TwistStamped,
)

_JOINTS: dict[str, type[Command]] = {
    "position": JointPosition,
    "velocity": JointVelocity,
    "effort": Joint,
}
_TWISTS: dict[str, type[Command]] = {
    "geometry_msgs/Twist": Twist,
    "geometry_msgs/TwistStamped": TwistStamped,
}
_GRIPPERS: dict[str, type[Command]] = {
    "std_msgs/Float64MultiArray": MultiArray,
    "trajectory_msgs/JointTrajectory": JointTrajectory,
}


def commands_of_channels(channels: Sequence[Channel], *, installed: bool = True) -> CommandSet:
    """Make the command of a robot from the channels of its file.

    Args:
        channels: of the file.
        installed: whether the messages have to be installed; reading a bag needs none of them.

    Raises:
        SettingsError: for a message that is not installed.
    """
    return CommandSet([_channel_of(channel, installed=installed) for channel in channels])


def _channel_of(channel: Channel, *, installed: bool) -> CommandChannel:
    command = _command_of(channel)
    try:
        assert not installed or command.message_class
    except ImportError as error:
        raise SettingsError(
            f"actions: {command.message} is not installed ({error}); install the package "
            f"ros-<distribution>-{command.message.split('/')[0].replace('_', '-')}"
        ) from error
    return CommandChannel(
        command,
        safe=channel.safe,
        hold_s=channel.hold_s,
        size=channel.size,
        low=channel.low,
        high=channel.high,
        max_rate=channel.max_rate,
        max_jerk=channel.max_jerk,
        units=channel.units,
        mode=getattr(channel, "mode", "position" if isinstance(channel, GripperChannel) else None),
        choices=channel.choices,
        takeover=channel.takeover or "",
        frame=getattr(channel, "frame", ""),
    )


def _command_of(channel: Any) -> Command:
    """Choose the message of a channel, with what it needs to be coded."""
    topic, names = channel.topic, channel.names
    if isinstance(channel, TwistChannel):
        return _TWISTS[channel.type](channel.fields, topic=topic)
    if isinstance(channel, AckermannChannel):
        return Ackermann(ACKERMANN_FIELDS[:2], topic=topic)
    if isinstance(channel, JointStateChannel):
        return _JOINTS[channel.mode](topic=topic, names=channel.joints)
    if isinstance(channel, JointTrajectoryChannel):
        return JointTrajectory(topic=topic, names=channel.joints, reach_s=channel.reach_s)
    if isinstance(channel, GripperChannel):
        kind = _GRIPPERS[channel.message]
        return kind(topic=topic, names=(channel.joint,), reach_s=channel.reach_s)
    if isinstance(channel, MultiArrayChannel):
        return MultiArray(topic=topic, names=names)
    raise SettingsError(f"actions: no message carries {channel.type!r}")
