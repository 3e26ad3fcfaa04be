"""Publishes the command."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node

from wm_ros import qos
from wm_ros.commands import Command


class CommandTopics:
    """Publishes commands as the messages that carry them.

    Args:
        node: that sends them.
        closers: closes the publisher.
        command: how a command is coded.
        frame_id: frame of reference of the command.
    """

    def __init__(self, node: Node, closers: ExitStack, command: Command, frame_id: str) -> None:
        self._command, self._frame_id = command, frame_id
        self._out = node.create_publisher(command.message_class, command.topic, qos.command())
        closers.callback(node.destroy_publisher, self._out)

    def publish(self, command: np.ndarray, *, names: Sequence[str], stamp_ns: int) -> None:
        """Send a command.

        Args:
            command: (command_size,) physical units; empty stops the robot.
            names: of its elements; may be empty.
            stamp_ns: stamp of the image that it answers; 0 for none.
        """
        encode = self._command.encode
        msg = encode(command, names=names, stamp_ns=stamp_ns, frame_id=self._frame_id)
        self._out.publish(msg)

    def wait_for_acked(self, timeout_s: float) -> None:
        """Wait until what was sent has arrived, at most ``timeout_s`` seconds."""
        self._out.wait_for_all_acked(Duration(seconds=timeout_s))
