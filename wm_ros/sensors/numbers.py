"""Reads bare numbers, and remembers the action that was sent last."""

from __future__ import annotations

from typing import Any

import numpy as np

from wm_core.contract.errors import SpecMismatch
from wm_core.robot.parts import NumbersPart, PrevActionPart
from wm_ros.sensors.source import Source


class NumberList(Source):
    """Hears a list of numbers without a stamp, which counts from its arrival on."""

    message, default_topic, stamped = "std_msgs/Float32MultiArray", "numbers", False

    def __init__(self, name: str, topic: str = "", part: NumbersPart | None = None) -> None:
        super().__init__(name, topic, part)
        self.message = self.message if part is None else part.type

    def decode(self, msg: Any, kind: Any) -> np.ndarray:
        assert isinstance(self.part, NumbersPart)
        if len(msg.data) != self.part.size:
            raise SpecMismatch(
                f"{self.name}: expected {self.part.size} numbers, got {len(msg.data)}"
            )
        return np.array(msg.data, np.float64)


class PrevAction(Source):
    """Gives the action that was sent last, in [-1, 1] or one-hot; zeros before the first.

    It is heard on no topic: ``Sensors.on_sent`` tells it.
    """

    message, default_topic, stamped = "", "", False

    def __init__(self, name: str, topic: str = "", part: PrevActionPart | None = None) -> None:
        super().__init__(name, topic, part)
        self.sent = np.zeros(0 if part is None else part.size)  #: (A,)

    def observe(self, kind: Any, stamp_ns: int, within_ns: int) -> np.ndarray:
        return self.adjusted(self.sent)

    def problem(self) -> str:
        return ""
