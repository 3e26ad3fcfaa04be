"""Publishes how the robot is doing, once a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import String

from wm_ros import qos
from wm_ros.diagnosis import diagnostics

REPORT_S = 1.0  #: seconds between two reports


class ReportTopics:
    """Publishes ``~/status`` and ``/diagnostics``.

    Args:
        node: that sends them.
        closers: closes the publishers and the timer.
        report: collects everything that is counted (``wm_ros.diagnosis.status_report``).
    """

    def __init__(
        self, node: Node, closers: ExitStack, report: Callable[[], dict[str, Any]]
    ) -> None:
        self._node, self._report = node, report
        self._status = node.create_publisher(String, "~/status", qos.latched())
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        for publisher in (self._status, self._diagnostics):
            closers.callback(node.destroy_publisher, publisher)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        timer = node.create_timer(REPORT_S, self._on_timer, clock=steady)
        closers.callback(node.destroy_timer, timer)

    def _on_timer(self) -> None:
        report = self._report()
        self._status.publish(String(data=json.dumps(report)))
        stamp = self._node.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(self._node.get_name(), report, stamp))
