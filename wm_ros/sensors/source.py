"""Defines what every kind of sensor has in common, and what a tick gets from all of them.

A source hears one topic.  Its messages stay serialised until a tick reads one of them: at 500 Hz
that is a tenth of the work of reading all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from wm_core.contract.spec import Obs
from wm_core.robot.parts import NumericPart, SensorPart
from wm_ros.convert import message_class, to_ns
from wm_ros.sensors.history import Heard, MessageLog, stamp_of
from wm_ros.sensors.unheard import Talker, Unheard, why_unheard

KEEP_NS = 2_000_000_000  #: how long messages are kept at least
MOST_MESSAGES = 4_096  #: of one topic that are kept: 8 s at 500 Hz
MOST_IMAGES = 8  #: of one camera; of the one that sets the pace fewer are needed
_SILENT_NS = 1_000_000_000  #: without a message for so long a topic is silent
FAR_NS = 1_000_000_000  #: a stamp so far from the clock is wrong


@dataclass(frozen=True, slots=True)
class Senses:
    """Holds the observation of one tick, or why there is none; ages are in seconds."""

    obs: Obs | None  #: None while no observation fits the policy
    stamp_ns: int = 0  #: of the first sensor's message; of the tick where none sets the pace
    fresh: bool = False  #: that message came since the last tick
    receive_age_s: float = float("inf")
    stamp_age_s: float = 0.0
    refused: str | None = None  #: why there is no observation, in one word
    detail: str = ""  #: the same in a sentence
    ages: Mapping[str, float] = field(default_factory=dict)  #: since the last message, by topic


class Absent(Exception):
    """Reports that a source has no message that belongs to an observation.

    Args:
        source: that has none.
        detail: what it has instead.
    """

    def __init__(self, source: Source, detail: str) -> None:
        super().__init__(detail)
        self.source, self.detail = source, detail


class Source:
    """Remembers the messages of one topic and turns them into an input, or a part of one.

    Args:
        name: of the sensor; without a robot file an input of that name is fed by it.
        topic: where it is heard; that of its kind if left out.
        part: what the robot file says of it; None where parameters say it.
    """

    message: str  #: such as sensor_msgs/Image
    default_topic: ClassVar[str]
    is_image: ClassVar[bool] = False  #: large: the parameter image_reliability applies
    stamped: bool = True  #: messages begin with a header; others are stamped as they arrive
    feeds_many: ClassVar[bool] = False  #: without a name of its own it feeds every fitting input

    def __init__(self, name: str, topic: str = "", part: SensorPart | None = None) -> None:
        self.name, self.topic = name, topic or self.default_topic
        self.part = part
        self.sets_pace = False
        self.unused = False  #: the policy has no input for it
        self.arrived_ns = 0  #: steady time at which the newest message came; 0 for none yet
        self.stamp_ns = 0  #: stamp of the newest message
        self.messages = 0  #: how many came
        self.refusal = ""  #: why the message that was read last does not fit
        self.apart = ""  #: how the messages lie to the observation, where none belongs to it
        self.wants_reliable = False  #: publishers that are best effort are not heard then
        self.take: Callable[[], Iterable[tuple[bytes, int]]] = tuple  #: waiting messages, and ages
        self.publishers: Callable[[], Sequence[Talker]] | None = None  #: on this topic
        self.alike: Callable[[], Sequence[str]] = tuple  #: other topics with such messages
        self.ros_now: Callable[[], int] = lambda: 0
        self.steady_now: Callable[[], int] = time.monotonic_ns
        self.parse: Callable[[bytes], Any] = self._parsed_by_ros  #: a bag has another way
        self.history = MessageLog(KEEP_NS, MOST_IMAGES if self.is_image else MOST_MESSAGES)

    @property
    def latest(self) -> bool:
        """Whether the last message counts however old it is."""
        return self.part is not None and self.part.latest

    @property
    def message_class(self) -> Any:
        return message_class(self.message)

    @property
    def queue(self) -> int:
        """Bound the messages that wait for the next tick."""
        if self.sets_pace:
            return 1 if self.is_image else 10
        return MOST_IMAGES // 2 if self.is_image else 256

    @property
    def rate_hz(self) -> float:
        """Tell how many messages a second came lately; 0 where that is not known."""
        return self.history.rate_hz

    def fits(self, kind: object) -> bool:
        """Tell whether this sensor can feed an input that the spec describes as ``kind``."""
        raise NotImplementedError

    def bind(self, kind: Any) -> None:
        """Learn from the policy's spec what this source has to read of its messages."""

    def _read(self, data: bytes) -> Any:
        return self.parse(data)

    def _parsed_by_ros(self, data: bytes) -> Any:
        from rclpy.serialization import deserialize_message

        return deserialize_message(data, self.message_class)

    def on_message(self, msg: Any, now_ns: int, age_ns: int = 0) -> None:
        """Remember a message, or its bytes, that came ``age_ns`` before ``now_ns`` (steady)."""
        if not self.stamped:
            stamp_ns = self.ros_now() - age_ns
        elif isinstance(msg, bytes):
            stamp_ns = stamp_of(msg)
        else:
            stamp_ns = to_ns(msg.header.stamp)
        self.arrived_ns, self.stamp_ns = now_ns - age_ns, stamp_ns
        self.history.add(Heard(msg, stamp_ns, self.arrived_ns, self._read))
        self.messages += 1

    def drain(self, now_ns: int) -> None:
        """Remember the messages that wait; a source that sets the pace is told of each."""
        for data, age_ns in self.take():
            self.on_message(data, now_ns, age_ns)

    # ------------------------------------------------------------------------------ reading

    def observe(self, kind: Any, stamp_ns: int, within_ns: int) -> np.ndarray:
        """Give the input, (H, W, C) or (n,), at a stamp.

        Args:
            kind: what the spec says of this input.
            stamp_ns: stamp of the observation.
            within_ns: a message further away does not belong to it.

        Raises:
            Absent: where no message is near enough.
            SpecMismatch: for a message that does not fit ``kind``.
        """
        return self.adjusted(self.decode(self.nearest(stamp_ns, within_ns).message, kind))

    def nearest(self, stamp_ns: int, within_ns: int) -> Heard:
        """Find the message that belongs to a stamp: the nearest one, or simply the last.

        Raises:
            Absent: where none is near enough.
        """
        allowed_ns = self.allowed_ns(within_ns)
        if self.latest:
            last = self.history.newest
            age_ns = self.steady_now() - self.arrived_ns
            if last is not None and age_ns <= allowed_ns:
                return last
            raise Absent(self, "none came yet" if last is None else f"{age_ns * 1e-9:.2f} s old")
        found = next(self.history.around(stamp_ns, allowed_ns), None)
        if found is None:
            raise Absent(self, self.distance(stamp_ns, allowed_ns))
        return found

    def allowed_ns(self, within_ns: int) -> int:
        """Bound how far a message may be from the observation."""
        if self.part is not None and self.part.max_age_s is not None:
            return round(self.part.max_age_s * 1e9)
        return 2**63 if self.latest else within_ns

    def distance(self, stamp_ns: int, allowed_ns: int) -> str:
        """Say how far the nearest message is from a stamp."""
        apart_ns = self.history.distance_ns(stamp_ns)
        if apart_ns is None:
            return "none came yet"
        if self.stamped and self.stamp_ns == 0:
            return "its messages have no stamp (0): see its driver, or latest in the robot file"
        return (
            f"the nearest is {apart_ns * 1e-9:.3f} s from the observation's stamp, "
            f"allowed are {allowed_ns * 1e-9:.3f} s" + self._too_slow(apart_ns, allowed_ns)
        )

    def _too_slow(self, apart_ns: int, allowed_ns: int) -> str:
        """Say that messages come less often than they may be apart, where that explains it."""
        interval_ns = 1e9 / self.rate_hz if self.rate_hz > 0 else 0.0
        if not allowed_ns < interval_ns or apart_ns > 2 * interval_ns:
            return ""
        return (
            f": it comes with {self.rate_hz:.3g} Hz only, one message in "
            f"{interval_ns * 1e-9:.3g} s; raise its rate, or allow more by "
            + (
                "tolerance_s (or max_age_s of this part) in the robot file"
                if self.part is not None
                else "tolerance_s of a robot file, or a longer period_s"
            )
        )

    def adjusted(self, values: np.ndarray) -> np.ndarray:
        """Scale and shift numbers (n,) as the robot file says; images stay as they are."""
        if not isinstance(self.part, NumericPart):
            return values
        scaled = values * np.array(self.part.scale) + np.array(self.part.offset)
        return scaled.astype(np.float32)

    def decode(self, msg: Any, kind: Any) -> np.ndarray:
        """Make the input in the shape of ``kind``, (H, W, C) or (n,), or a part of it (m,).

        Raises:
            SpecMismatch: for a message that does not fit ``kind``.
        """
        raise NotImplementedError

    # ------------------------------------------------------------------------------ judging

    @property
    def note(self) -> str:
        """Say what a person should know though nothing is wrong; nothing for most sources."""
        return ""

    def problem(self) -> str:
        """Say in one sentence why this source gives nothing usable; nothing where all is well."""
        self.drain(time.monotonic_ns())  # where no tick runs, nobody else does
        if self.unused:
            return ""
        if self.refusal:
            return self.refusal
        if not self.messages:
            return self._unheard()
        age_ns = time.monotonic_ns() - self.arrived_ns
        if not self.latest and age_ns > max(_SILENT_NS, self._usual_ns()):
            unheard = f"{self.topic} is silent since {age_ns * 1e-9:.1f} s"
            publishers = self.publishers() if self.publishers is not None else None
            return unheard + ("; nobody publishes on it any more" if publishers == () else "")
        return self._wrong_stamp(age_ns) or (self.apart and f"{self.topic}: {self.apart}")

    def _usual_ns(self) -> float:
        return 5e9 / self.rate_hz if self.rate_hz > 0 else 0.0

    def _wrong_stamp(self, age_ns: int) -> str:
        now_ns = self.ros_now()
        if not self.stamped or self.latest or not now_ns:
            return ""
        if self.stamp_ns == 0:
            return f"{self.topic}: messages carry no stamp (0); the driver has to set it"
        behind_ns = now_ns - age_ns - self.stamp_ns
        if abs(behind_ns) < FAR_NS:
            return ""
        where = "behind" if behind_ns > 0 else "ahead of"
        return (
            f"{self.topic}: stamps lie {abs(behind_ns) * 1e-9:.1f} s {where} the clock of this "
            "node; set the clocks alike (chrony), or use_sim_time on both or on neither"
        )

    def _unheard(self) -> str:
        return why_unheard(
            Unheard(
                topic=self.topic,
                message=self.message,
                is_image=self.is_image,
                wants_reliable=self.wants_reliable,
                publishers=() if self.publishers is None else tuple(self.publishers()),
                alike=tuple(self.alike()),
            )
        )
