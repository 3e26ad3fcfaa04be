"""Hears what was published before this node was there: a goal, sent once by a latched publisher.

A subscription that asks for such messages is refused by publishers that keep none, and both sides
would log so.  Each topic is therefore heard plainly, and a second time once a publisher that
keeps its last messages (transient local) is seen on it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy

from wm_ros import qos

_LOOK_S = 0.5  #: how often publishers are looked for until a latched one is found
_KNOWN = 512  #: messages that are known to have been heard


class LatchedTopic:
    """Joins what two subscriptions of one topic hear, each message once and in order.

    Args:
        node: that hears them.
        closers: closes what is opened here.
        topic: its full name.
        plain: takes what waits in the plain subscription: (bytes, nanoseconds waited, time of
            publishing in nanoseconds or 0).
        subscribe: opens the second subscription by its quality of service, and gives what takes
            from it.
        depth: messages that are kept for the next tick.
    """

    def __init__(
        self,
        node: Node,
        closers: ExitStack,
        topic: str,
        *,
        plain: Callable[[], Iterable[tuple[bytes, int, int]]],
        subscribe: Callable[[Any], Callable[[], Iterable[tuple[bytes, int, int]]]],
        depth: int,
    ) -> None:
        self._node, self._topic, self._depth = node, topic, depth
        self._plain, self._subscribe = plain, subscribe
        self._latched: Callable[[], Iterable[tuple[bytes, int, int]]] | None = None
        self._known: deque[int] = deque(maxlen=_KNOWN)  # times of publishing
        self._publishers = 0
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_LOOK_S, self._look, clock=steady)
        closers.callback(node.destroy_timer, self._timer)

    def _look(self) -> None:
        count = self._node.count_publishers(self._topic)
        if count == self._publishers:
            return
        self._publishers = count
        infos = self._node.get_publishers_info_by_topic(self._topic)
        if any(i.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for i in infos):
            profile = qos.latched()
            profile.depth = self._depth
            self._latched = self._subscribe(profile)
            self._timer.cancel()

    def take(self) -> Iterator[tuple[bytes, int]]:
        """Take every message that waits, each with the nanoseconds it waited."""
        if self._latched is not None:
            for data, age_ns, sent_ns in self._latched():
                # of long ago: what another publisher said since counts
                if not sent_ns or sent_ns > max(self._known, default=0):
                    self._known.append(sent_ns)
                    yield data, age_ns
        for data, age_ns, sent_ns in self._plain():
            if not sent_ns or sent_ns not in self._known:
                self._known.append(sent_ns)
                yield data, age_ns
