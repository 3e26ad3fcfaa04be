"""Chooses the quality of service for each kind of topic.

Sensors: best effort, depth 1.  A queue of old frames is worse than a lost one: with 60 ms of
inference at 30 Hz the frame used is 19 ms old at depth 1 and 316 ms at depth 10.
"""

from __future__ import annotations

from typing import Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def sensor(*, depth: int = 1, reliable: bool = False) -> QoSProfile:
    """Keeps the newest ``depth`` messages; reliable where they are large and few may be lost."""
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy)


def signals() -> QoSProfile:
    """Loses no reward and no flag."""
    return sensor(depth=100, reliable=True)


def command() -> QoSProfile:
    """Has the newest command arrive."""
    return sensor(reliable=True)


def latched() -> QoSProfile:
    """Gives the last message to whoever comes late."""
    profile = sensor(reliable=True)
    profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    return profile


def quiet() -> Any:
    """Keeps a subscription from warning of publishers that offer another quality."""
    try:
        from rclpy.event_handler import SubscriptionEventCallbacks
    except ImportError:  # Humble
        from rclpy.qos_event import SubscriptionEventCallbacks
    return SubscriptionEventCallbacks(use_default_callbacks=False)
