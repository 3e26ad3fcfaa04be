"""Subscribes the sensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.node import Node

from wm_ros import qos
from wm_ros.sensors.source import Source
from wm_ros.sensors.table import Sensors


class SensorTopics:
    """Subscribes each source and passes its messages on.

    Args:
        node: that hears them.
        closers: closes the subscriptions.
        sensors: whose sources are heard.
        reliable: whether images are asked for reliably.
        on_message: called with the source and each of its messages.
    """

    def __init__(
        self,
        node: Node,
        closers: ExitStack,
        sensors: Sensors,
        *,
        reliable: bool,
        on_message: Callable[[Source, Any], None],
    ) -> None:
        for source in sensors.sources:
            profile = qos.sensor(depth=source.queue, reliable=source.is_image and reliable)
            callback, kind = partial(on_message, source), source.message_class
            heard = node.create_subscription(kind, source.topic, callback, profile)
            closers.callback(node.destroy_subscription, heard)
