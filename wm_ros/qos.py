"""Quality of service, chosen once for each kind of topic.

Sensors: best effort, depth 1.  A queue of old frames is worse than a lost one: with 60 ms of
inference at 30 Hz the frame used is 19 ms old at depth 1 and 316 ms at depth 10.
"""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def sensor(*, depth: int = 1, reliable: bool = False) -> QoSProfile:
    """The newest ``depth`` messages count; reliable where they are large and few may be lost."""
    policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy)


def signals() -> QoSProfile:
    """Reward and flags: none may be lost."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=100, reliability=ReliabilityPolicy.RELIABLE
    )


def command() -> QoSProfile:
    """The newest command arrives."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE
    )


def latched() -> QoSProfile:
    """Whoever comes late still gets the last message."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
