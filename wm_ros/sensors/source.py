"""What every kind of sensor has in common: it remembers its last messages, by their stamps."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

import numpy as np

from wm_ros.convert import message_class, to_ns


class Source:
    """Remembers the last messages of one topic and turns one of them into an input.

    Args:
        name: of the sensor.
    """

    message: ClassVar[str]  #: such as sensor_msgs/Image
    topic: ClassVar[str]  #: where the first sensor of this kind is heard
    is_image: ClassVar[bool] = False  #: large: the parameter image_reliability applies
    queue: ClassVar[int] = 1  #: messages that the subscription keeps
    feeds_many: ClassVar[bool] = False  #: without a name of its own it feeds every fitting input
    kept: ClassVar[int] = 3  #: messages from which the one nearest to a stamp is chosen

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrived_ns = 0  #: steady time at which the newest message came; 0 for none yet
        self.stamp_ns = 0  #: stamp of the newest message
        self.messages = 0  #: how many came
        self._kept: deque[Any] = deque(maxlen=self.kept)

    @property
    def message_class(self) -> Any:
        """The class of the message."""
        return message_class(self.message)

    def fits(self, kind: object) -> bool:
        """Whether this sensor can feed an input that the spec describes as ``kind``."""
        raise NotImplementedError

    def on_message(self, msg: Any, now_ns: int) -> None:
        """Remember a message that came at the steady time ``now_ns``."""
        self._kept.appendleft(msg)
        self.arrived_ns, self.stamp_ns = now_ns, to_ns(msg.header.stamp)
        self.messages += 1

    def observe(self, kind: Any, stamp_ns: int, within_ns: int) -> np.ndarray | None:
        """The input, (H, W, C) or (n,), at a stamp; None where no message is near enough.

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
        """The input in the shape of ``kind``: (H, W, C) or (n,).

        Raises:
            SpecMismatch: for a message that does not fit ``kind``.
        """
        raise NotImplementedError
