"""Publishes the command, each channel on its topic."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node

from wm_ros import qos
from wm_ros.commands import CommandSet


class CommandTopics:
    """Publishes commands as the messages that carry them.

    Args:
        node: that sends them.
        closers: closes the publishers.
        commands: how a command is coded, channel by channel.
        frame_id: frame of reference of the command.
    """

    def __init__(
        self, node: Node, closers: ExitStack, commands: CommandSet, frame_id: str
    ) -> None:
        self._node, self._commands, self._frame_id = node, commands, frame_id
        self._out = [
            node.create_publisher(c.command.message_class, c.command.topic, qos.command())
            for c in commands.channels
        ]
        for publisher in self._out:
            closers.callback(node.destroy_publisher, publisher)

    def publish(
        self, command: np.ndarray, *, stamp_ns: int, held: frozenset[int] = frozenset()
    ) -> None:
        """Send a command.

        Args:
            command: (command_size,) physical units; empty stops the robot.
            stamp_ns: stamp of the image that it answers; 0 for none: then it carries the present
                time and a nanosecond more, so that no image has its stamp, and a driver that
                drops old commands obeys it all the same.
            held: channels to which nothing is sent.
        """
        stamp_ns = stamp_ns or self._node.get_clock().now().nanoseconds + 1
        for i, msg in self._commands.encode(
            command, stamp_ns=stamp_ns, frame_id=self._frame_id, held=held
        ):
            self._out[i].publish(msg)

    def publish_last(self, command: np.ndarray, *, held: frozenset[int]) -> None:
        """Send the last command; a channel that fails does not keep the others from theirs.

        Args:
            command: (command_size,) physical units; empty stops the robot.
            held: channels to which nothing is sent.
        """
        every = frozenset(range(len(self._out)))
        with ExitStack() as sends:  # goes on behind one that raises, and raises it in the end
            for i in every - held:
                sends.callback(self.publish, command, stamp_ns=0, held=every - {i})

    def wait_for_acked(self, timeout_s: float) -> None:
        """Wait until what was sent has arrived, at most ``timeout_s`` seconds."""
        for publisher in self._out:
            publisher.wait_for_all_acked(Duration(seconds=timeout_s))

    def problems(self) -> dict[str, str]:
        """Say of each channel, by its topic, why no one takes its commands; empty: someone does.

        It asks the graph of nodes, so not within a tick.
        """
        return {
            channel.command.topic: self._problem(i)
            for i, channel in enumerate(self._commands.channels)
        }

    def _problem(self, i: int) -> str:
        publisher = self._out[i]
        if publisher.get_subscription_count():
            return ""
        topic, wanted = publisher.topic_name, self._commands.channels[i].command.message
        found = self._node.get_subscriptions_info_by_topic(topic)
        if not found:
            return f"no node subscribes {topic}; see whether the driver runs and on which topic"
        others = sorted({info.topic_type.replace("/msg/", "/") for info in found} - {wanted})
        nodes = sorted({f"{info.node_namespace.rstrip('/')}/{info.node_name}" for info in found})
        if others:
            return (
                f"{', '.join(nodes)} takes {', '.join(others)} on {topic}, this node sends "
                f"{wanted}; set command_type"
            )
        return (
            f"{', '.join(nodes)} asks for another quality of service on {topic} than reliable, "
            "volatile"
        )
