"""Publishes how the robot is doing, once a second and when that changes; and writes the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import String

from wm_core.contract.files import json_text
from wm_ros import qos
from wm_ros.reporting.diagnosis import Diagnosis, to_message
from wm_ros.safety.reasons import OK, WARN
from wm_ros.topics.ticker import TickTimer

REPORT_S = 1.0  #: seconds between two reports
SOON_NS = 200_000_000  #: from a change to the report of it


def say(node: Node, level: int, text: str) -> None:
    """Write a line of the log; three calls, as rclpy ties a severity to the place of the call."""
    if level == OK:
        node.get_logger().info(text)
    elif level == WARN:
        node.get_logger().warning(text)
    else:
        node.get_logger().error(text)


class ReportTopics:
    """Publishes ``~/status`` and ``/diagnostics``.

    Args:
        node: that sends them.
        closers: closes the publishers and the timer.
        robot: name of the robot; with the namespace it is the ``hardware_id``.
        report: collects everything that is counted, and judges it.
    """

    def __init__(
        self,
        node: Node,
        closers: ExitStack,
        robot: str,
        report: Callable[[], tuple[dict[str, Any], list[Diagnosis]]],
    ) -> None:
        self._node, self._report = node, report
        self._hardware = f"{robot} {node.get_namespace()}"
        self._status = node.create_publisher(String, "~/status", qos.latched())
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        for publisher in (self._status, self._diagnostics):
            closers.callback(node.destroy_publisher, publisher)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = node.create_timer(REPORT_S, self.publish, clock=steady)
        closers.callback(node.destroy_timer, timer)
        self._extra, self._waits = TickTimer(node, closers, self.publish), False

    def soon(self) -> None:
        """Report once more in a moment: something has changed."""
        if not self._waits:
            self._waits = True
            self._extra.wake_at(time.monotonic_ns() + SOON_NS)

    def publish(self) -> None:
        """Report now."""
        self._extra.stop()
        self._waits = False
        report, statuses = self._report()
        self._status.publish(String(data=json_text(report)))
        name, now = self._node.get_fully_qualified_name(), self._node.get_clock().now()
        self._diagnostics.publish(
            to_message(statuses, node=name, hardware=self._hardware, stamp=now.to_msg())
        )
