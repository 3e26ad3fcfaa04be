"""Carries commands to the robot: a class for each message, channels, and the set of them.

A channel is one topic: its message, its limits and its safe action. Several make up the command.
"""

from wm_ros.commands.channels import CommandChannel as CommandChannel
from wm_ros.commands.channels import CommandSet as CommandSet
from wm_ros.commands.command import Command as Command
from wm_ros.commands.messages import COMMANDS as COMMANDS
from wm_ros.commands.messages import TWIST_FIELDS as TWIST_FIELDS
