"""Subscribes the sensors.

Only the sensor that sets the pace wakes the node.  What comes on the other topics waits in the
middleware until the next tick takes it: at 500 Hz that is a fifth of the work.  Messages are taken
as bytes and read when a tick uses them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node

from wm_ros import qos
from wm_ros.sensors.source import Source
from wm_ros.sensors.table import Sensors
from wm_ros.sensors.unheard import Talker
from wm_ros.topics.latched import LatchedTopic

_MOST_WAIT_NS = 10_000_000_000  #: a longer wait than this is a clock that was set


class SensorTopics:
    """Subscribes each source and passes its messages on.

    Args:
        node: that hears them.
        closers: closes the subscriptions.
        sensors: whose sources are heard.
        reliable: whether images are asked for reliably.
        on_message: called with the source that sets the pace and each of its messages, as bytes.
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
        self._node = node
        self._waiting = WaitingGroup()
        for source in sensors.sources:
            self._open(source, closers, reliable=reliable, on_message=on_message)

    def _open(
        self,
        source: Source,
        closers: ExitStack,
        *,
        reliable: bool,
        on_message: Callable[[Source, Any], None],
    ) -> None:
        node = self._node
        source.wants_reliable = source.is_image and reliable
        heard = node.create_subscription(
            source.message_class,
            source.topic,
            partial(on_message, source),
            qos.sensor(depth=source.queue, reliable=source.wants_reliable),
            raw=True,
            callback_group=None if source.sets_pace else self._waiting,
            # an event that is waited for wakes the executor with every message, taken or not
            event_callbacks=None if source.sets_pace else qos.quiet(),
        )
        closers.callback(node.destroy_subscription, heard)
        source.ros_now = lambda: node.get_clock().now().nanoseconds
        source.publishers = partial(talkers, node, heard.topic_name)
        source.alike = partial(topics_alike, node, source.message, heard.topic_name)
        source.topic = heard.topic_name
        if not source.sets_pace:
            source.take = partial(take_waiting, heard)
            if source.latest:
                source.take = self._latched(source, closers, heard).take
            closers.callback(setattr, source, "take", tuple)

    def _latched(self, source: Source, closers: ExitStack, plain: Any) -> LatchedTopic:
        """Hear what was published before this node was there, too."""
        node = self._node

        def subscribe(profile: Any) -> Callable[[], Iterable[tuple[bytes, int, int]]]:
            heard = node.create_subscription(
                source.message_class,
                plain.topic_name,
                lambda _: None,
                profile,
                raw=True,
                callback_group=self._waiting,
                event_callbacks=qos.quiet(),
            )
            closers.callback(node.destroy_subscription, heard)
            return partial(take_sent, heard)

        return LatchedTopic(
            node,
            closers,
            plain.topic_name,
            plain=partial(take_sent, plain),
            subscribe=subscribe,
            depth=source.queue,
        )


def talkers(node: Node, topic: str) -> tuple[Talker, ...]:
    """List who publishes on a topic, as the graph knows it."""
    return tuple(
        Talker(
            node=f"{info.node_namespace.rstrip('/')}/{info.node_name}",
            message=info.topic_type.replace("/msg/", "/"),
            reliability=info.qos_profile.reliability.name,
            durability=info.qos_profile.durability.name,
        )
        for info in node.get_publishers_info_by_topic(topic)
    )


def topics_alike(node: Node, message: str, topic: str) -> tuple[str, ...]:
    """List the other topics on which messages of a kind come."""
    named = node.get_topic_names_and_types()
    kinds = ((name, [t.replace("/msg/", "/") for t in types]) for name, types in named)
    fitting = (name for name, types in kinds if message in types and name != topic)
    return tuple(name for name in fitting if node.count_publishers(name))


class WaitingGroup(ReentrantCallbackGroup):
    """Has the executor pass over subscriptions."""

    def can_execute(self, entity: Any) -> bool:
        return False


def take_waiting(heard: Any) -> Iterable[tuple[bytes, int]]:
    """Take every message that waits, in their order, each with the nanoseconds it waited."""
    for data, waited_ns, _ in take_sent(heard):
        yield data, waited_ns


def take_sent(heard: Any) -> Iterable[tuple[bytes, int, int]]:
    """Take what waits: bytes, nanoseconds waited, when it was published (0: not known)."""
    now_ns = time.time_ns()
    with heard.handle:
        while (taken := heard.handle.take_message(heard.msg_type, heard.raw)) is not None:
            data, info = taken
            known = info if isinstance(info, dict) else {}
            came_ns = known.get("received_timestamp", 0)
            waited_ns = now_ns - came_ns if came_ns else 0
            waited_ns = waited_ns if 0 <= waited_ns < _MOST_WAIT_NS else 0
            yield data, waited_ns, known.get("source_timestamp", 0)
