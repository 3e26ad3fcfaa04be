"""Defines what every kind of sensor has in common, and what a tick gets from all of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wm_core.contract.spec import Obs
from wm_ros.convert import message_class, to_ns


@dataclass(frozen=True, slots=True)
class Senses:
    """Holds the observation of one tick, or why there is none; ages are in seconds."""

    obs: Obs | None  #: None while no observation fits the policy
    stamp_ns: int = 0  #: of the first sensor's message
    fresh: bool = False  #: that message came since the last tick
    receive_age_s: float = float("inf")
    stamp_age_s: float = 0.0
    refused: str | None = None  #: why there is no observation, in one word


class Source:
    """Remembers the last messages of one topic and turns one of them into an input.

    Args:
        name: of the sensor; an input of that name is fed by it.
        topic: where it is heard; that of its kind if left out.
    """

    message: ClassVar[str]  #: such as sensor_msgs/Image
    default_topic: ClassVar[str]
    is_image: ClassVar[bool] = False  #: large: the parameter image_reliability applies
    queue: ClassVar[int] = 1  #: messages that the subscription keeps
    feeds_many: ClassVar[bool] = False  #: without a name of its own it feeds every fitting input
    kept: ClassVar[int] = 3  #: messages from which the one nearest to a stamp is chosen

    def __init__(self, name: str, topic: str = "") -> None:
        self.name, self.topic = name, topic or self.default_topic
        self.arrived_ns = 0  #: steady time at which the newest message came; 0 for none yet
        self.stamp_ns = 0  #: stamp of the newest message
        self.messages = 0  #: how many came
        self._kept: deque[Any] = deque(maxlen=self.kept)

    @property
    def message_class(self) -> Any:
        return message_class(self.message)

    def fits(self, kind: object) -> bool:
        """Tell whether this sensor can feed an input that the spec describes as ``kind``."""
        raise NotImplementedError

    def on_message(self, msg: Any, now_ns: int) -> None:
        """Remember a message that came at the steady time ``now_ns``."""
        self._kept.appendleft(msg)
        self.arrived_ns, self.stamp_ns = now_ns, to_ns(msg.header.stamp)
        self.messages += 1

    def observe(self, kind: Any, stamp_ns: int, within_ns: int) -> np.ndarray | None:
        """Give the input, (H, W, C) or (n,), at a stamp; None where no message is near enough.

        Args:
            kind: what the spec says of this input.
            stamp_ns: stamp of the observation.
            within_ns: a message further away does not belong to it.

        Raises:
            SpecMismatch: for a message that does not fit ``kind``.
        """

        def distance(msg: Any) -> int:
            return abs(to_ns(msg.header.stamp) - stamp_ns)

        nearest = min(self._kept, key=distance, default=None)  # of equals the newest
        if nearest is None or distance(nearest) > within_ns:
            return None
        return self.decode(nearest, kind)

    def decode(self, msg: Any, kind: Any) -> np.ndarray:
        """Make the input in the shape of ``kind``: (H, W, C) or (n,).

        Raises:
            SpecMismatch: for a message that does not fit ``kind``.
        """
        raise NotImplementedError
