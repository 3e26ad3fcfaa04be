"""Keeps the messages of the last seconds, so that the one nearest to a stamp can be found."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Callable, Iterator
from typing import Any

_FIRST_STAMP = 4  #: where a serialised message's header begins, behind 4 bytes about its encoding
_LITTLE = struct.Struct("<iI")
_BIG = struct.Struct(">iI")


def stamp_of(data: bytes) -> int:
    """Read the nanoseconds of the header's stamp with which a serialised message begins."""
    layout = _LITTLE if data[1] & 1 else _BIG
    seconds, nanoseconds = layout.unpack_from(data, _FIRST_STAMP)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


class Heard:
    """Holds one message, which stays serialised until somebody reads it.

    Args:
        content: the message, or its bytes.
        stamp_ns: when it was measured.
        arrived_ns: steady time at which it came.
        read: turns the bytes into the message.
    """

    __slots__ = ("_content", "_parsed", "_read", "arrived_ns", "stamp_ns")

    def __init__(
        self, content: Any, stamp_ns: int, arrived_ns: int, read: Callable[[bytes], Any]
    ) -> None:
        self._content, self._read, self._parsed = content, read, None
        self.stamp_ns, self.arrived_ns = stamp_ns, arrived_ns

    @property
    def message(self) -> Any:
        if isinstance(self._content, bytes):
            self._content = self._read(self._content)
        return self._content

    def parsed(self, parse: Callable[[Any], Any]) -> Any:
        """Give what ``parse`` makes of the message, which is done once."""
        if self._parsed is None:
            self._parsed = parse(self.message)
        return self._parsed


class MessageLog:
    """Keeps messages in the order of their stamps; adding one costs the same however many.

    A message is forgotten once it is older than ``keep_ns`` by its stamp *and* by its arrival:
    simulated time may run at any pace, and one stamp from the future makes nothing old.

    Args:
        keep_ns: age after which a message is forgotten.
        most: how many are kept at most.
    """

    def __init__(self, keep_ns: int, most: int) -> None:
        self.keep_ns, self.most = keep_ns, most
        self.newest: Heard | None = None  #: the one that came last
        self._stamps: list[int] = []
        self._heard: list[Heard] = []

    def __len__(self) -> int:
        return len(self._heard)

    def add(self, heard: Heard) -> None:
        """Keep a message that came last, and forget what is too old or too much."""
        at = bisect.bisect_right(self._stamps, heard.stamp_ns)
        self._stamps.insert(at, heard.stamp_ns)
        self._heard.insert(at, heard)
        self.newest = heard
        while len(self._heard) > self.most:
            self._forget(0 if self._heard[0].arrived_ns <= self._heard[-1].arrived_ns else -1)
        for end in (0, -1):  # at the far end lie stamps from before a clock was set back
            while self._is_old(self._heard[end], heard):
                self._forget(end)

    def _is_old(self, heard: Heard, newest: Heard) -> bool:
        return (
            newest.arrived_ns - heard.arrived_ns > self.keep_ns
            and abs(newest.stamp_ns - heard.stamp_ns) > self.keep_ns
        )

    def _forget(self, index: int) -> None:
        del self._stamps[index], self._heard[index]

    def around(self, stamp_ns: int, within_ns: int) -> Iterator[Heard]:
        """List the messages at most ``within_ns`` from a stamp, the nearest first.

        Of equally near ones that with the later stamp comes first, and of one stamp the one that
        came last.
        """
        after = bisect.bisect_right(self._stamps, stamp_ns)
        before = after - 1
        while True:
            behind = stamp_ns - self._stamps[before] if before >= 0 else within_ns + 1
            ahead = self._stamps[after] - stamp_ns if after < len(self._stamps) else within_ns + 1
            if min(behind, ahead) > within_ns:
                return
            if ahead <= behind:
                yield self._heard[after]
                after += 1
            else:
                yield self._heard[before]
                before -= 1

    def distance_ns(self, stamp_ns: int) -> int | None:
        """Tell how far the nearest message is from a stamp; None where there is none."""
        after = bisect.bisect_left(self._stamps, stamp_ns)
        near = self._stamps[max(0, after - 1) : after + 1]
        return min((abs(stamp - stamp_ns) for stamp in near), default=None)

    @property
    def rate_hz(self) -> float:
        """Tell how many messages a second came lately; 0 where that is not known."""
        if len(self._heard) < 2:
            return 0.0
        arrivals = [h.arrived_ns for h in (self._heard[0], self._heard[-1])]
        span_s = abs(arrivals[1] - arrivals[0]) * 1e-9
        return (len(self._heard) - 1) / span_s if span_s > 0 else 0.0
