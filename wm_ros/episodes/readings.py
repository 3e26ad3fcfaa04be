"""Keeps the numbers of topics that reward and conditions read; no ROS.

A number belongs to an observation if its message was stamped near enough to it.  A message without
a stamp, and one that is marked ``latest``, counts until it is too old.
"""

from __future__ import annotations

import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from wm_core.contract.errors import SettingsError, nearest
from wm_core.robot.episode import NamedNumber
from wm_ros.convert import message_class, to_ns

KEPT = 500  #: messages of one number from which the one nearest to a stamp is chosen
_STEP = re.compile(r"(\w+)(?:\[([^\]]+)\])?")
_NUMBERS = ("float", "double", "boolean", "int", "uint", "octet", "byte", "char")


class Reading:
    """Keeps one number of one topic.

    Args:
        name: by which formulas call it.
        number: its topic, message and the path in it.
        find: finds the class of a message by its name, or what describes its fields as that does.

    Raises:
        SettingsError: for a message that is not installed, or a path that it does not have.
    """

    def __init__(
        self, name: str, number: NamedNumber, find: Callable[[str], Any] = message_class
    ) -> None:
        self.name, self.topic, self._find = name, number.topic, find
        try:
            self.message_class = find(number.type)
        except (ImportError, AttributeError) as error:
            raise SettingsError(
                f"values.{name}.type: expected a message that is installed, got {number.type!r}"
            ) from error
        self.message = number.type
        self._steps = [(m[1], m[2]) for m in _STEP.finditer(number.field)]
        self.stamped = "header" in self.message_class.get_fields_and_field_types()
        self._check(self.message_class, number)
        self.latest = not self.stamped if number.latest is None else number.latest
        self._max_age_ns = math.inf if number.max_age_s is None else number.max_age_s * 1e9
        self._kept: deque[tuple[int, float]] = deque(maxlen=KEPT)  # stamp, number; newest first
        self._arrived_ns = 0
        self.take: Callable[[], Iterable[tuple[Any, int]]] = tuple  #: what waits: (message, ns)
        self.ros_now: Callable[[], int] = lambda: 0
        self.messages = 0
        self.ticks_since = 1 << 30  #: observations since the last message

    def _check(self, kind: Any, number: NamedNumber) -> None:
        """Raise ``SettingsError`` unless the path leads to one number."""
        what = f"values.{self.name}.field: {number.type}"
        for attribute, index in self._steps:
            fields = {} if kind is None else kind.get_fields_and_field_types()
            if attribute not in fields:
                raise SettingsError(f"{what} has {nearest(attribute, fields, what='field')}")
            plain = re.sub(r"^sequence<|(, \d+)?>$|\[.*\]$", "", fields[attribute])
            if (plain != fields[attribute]) != (index is not None):
                many = "several numbers: write [0], or [name]" if index is None else "one value"
                raise SettingsError(f"{what} has in {attribute!r} {many}")
            kind = self._find(plain) if "/" in plain else None
        if kind is not None or not plain.startswith(_NUMBERS):
            raise SettingsError(f"{what}: expected a path to a number, got {plain}")

    def drain(self) -> None:
        """Keep every message that waits in the middleware."""
        for msg, waited_ns in self.take():
            self.on_message(msg, time.monotonic_ns() - waited_ns, self.ros_now() - waited_ns)

    def on_message(self, msg: Any, now_ns: int, ros_now_ns: int) -> None:
        """Keep the number of a message that came at a steady time and a time of ROS."""
        stamp_ns = to_ns(msg.header.stamp) if self.stamped else ros_now_ns
        self._kept.appendleft((stamp_ns, self._read(msg)))
        self._arrived_ns = now_ns
        self.messages += 1
        self.ticks_since = 0

    def _read(self, msg: Any) -> float:
        """Read the number; NaN where the message lacks it."""
        value = msg
        for attribute, index in self._steps:
            owner, value = value, getattr(value, attribute)
            if index is not None:
                names = [*getattr(owner, "name", ())]
                if not index.isdecimal() and index not in names:
                    return math.nan
                place = int(index) if index.isdecimal() else names.index(index)
                if place >= len(value):
                    return math.nan
                value = value[place]
        return float(value[0]) if isinstance(value, bytes) else float(value)

    def at(self, stamp_ns: int, within_ns: int, now_ns: int) -> float | None:
        """Give the number that belongs to an observation; None where none does.

        Args:
            stamp_ns: of the observation.
            within_ns: a message farther from it does not belong to it.
            now_ns: steady time.
        """
        if not self._kept:
            return None
        if self.latest:
            return self._kept[0][1] if now_ns - self._arrived_ns <= self._max_age_ns else None
        nearest, found = within_ns + 1, None
        for stamp, value in self._kept:
            if abs(stamp - stamp_ns) < nearest:
                nearest, found = abs(stamp - stamp_ns), value
            if stamp < stamp_ns - within_ns:
                break  # what is older still is farther away
        return found

    def may_come(self, stamp_ns: int, within_ns: int) -> bool:
        """Tell whether the message that belongs to this stamp is probably still on its way."""
        if self.latest or self.ticks_since > 1:  # none came for the observation before
            return False
        return not self._kept or self._kept[0][0] < stamp_ns - within_ns


def read_all(
    readings: Mapping[str, Reading], stamp_ns: int, within_ns: int, now_ns: int
) -> tuple[dict[str, float], list[str]]:
    """Give every number at a stamp, NaN where there is none, and the names of those."""
    found = {name: reading.at(stamp_ns, within_ns, now_ns) for name, reading in readings.items()}
    missing = [name for name, value in found.items() if value is None]
    return {name: math.nan if v is None else v for name, v in found.items()}, missing
