"""Hears reward and the flags of episodes."""

from __future__ import annotations

from contextlib import ExitStack

from rclpy.node import Node
from sensor_msgs.msg import JointState

from wm_core.contract.errors import SpecMismatch
from wm_ros import convert, qos
from wm_ros.experience import Signals


class EpisodeTopics:
    """Subscribes ``reward``.

    Args:
        node: that hears it.
        closers: closes the subscription.
        signals: where its messages wait for their tick.
    """

    def __init__(self, node: Node, closers: ExitStack, signals: Signals) -> None:
        self._signals, self._logger = signals, node.get_logger()
        heard = node.create_subscription(JointState, "reward", self._on_signal, qos.signals())
        closers.callback(node.destroy_subscription, heard)

    def _on_signal(self, msg: JointState) -> None:
        try:
            self._signals.put(convert.to_signal(msg))
        except SpecMismatch as error:
            self._signals.counts["signals_refused"] += 1
            self._logger.error(str(error), throttle_duration_sec=5.0)
