"""Keeps what each robot said of itself last, in memory and within bounds.

Reports are kept as the bytes that people are sent, so that their memory is what is counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from wm_core.contract.files import json_text
from wm_core.contract.live import LiveReport
from wm_core.link.trainer.limits import Excess, RateLimit

MAX_ROBOTS = 1000
MAX_BYTES = 64 << 20  #: of all reports ...
MAX_PICTURE_BYTES = 40 << 20  #: ... of which pictures may take so much, so that numbers find room
WATCH_S = 5.0  #: for which a robot counts as watched after somebody looked
MAX_WATCHED = 32  #: robots that one look without names marks as watched
MAX_ANSWER_BYTES = 4 << 20  #: beyond it robots come without their pictures
FORGET_S = 600.0  #: silence after which a robot is forgotten
_SILENT_S = 10.0  #: silence after which it gives way to another where there is no room
_CAMERAS = b'{"cameras":'  # before the pictures of a report
_NONE = b"{}"  # pictures
_OVERHEAD = 1000  #: bytes of one robot's entry beside its report
_WANTED_PER_S = 200.0  #: reports of all robots while nobody watches
_ROBOT_PER_S, _ALL_PER_S = 25.0, 1000.0  #: reports that are read
_MOST_SENDERS = 4096  #: whose rates are remembered


@dataclass(slots=True)
class _Heard:
    """What one robot said last."""

    at_s: float
    numbers: bytes  # a JSON object
    cameras: bytes  # a JSON object
    left_out: bool  # its pictures found no room

    @property
    def size(self) -> int:
        return len(self.numbers) + len(self.cameras) + _OVERHEAD


@dataclass
class LiveBoard:
    """Holds the newest report of each robot; for one thread.

    Args:
        clock: gives seconds that only grow.
    """

    clock: Callable[[], float] = time.monotonic
    held_bytes: int = 0  #: of what is kept
    picture_bytes: int = 0  #: of its pictures
    taken: int = 0  #: reports that were kept so far
    refused: int = 0  #: reports that were not
    _heard: dict[str, _Heard] = field(default_factory=dict)  # the one heard longest ago first
    _watched: dict[str, float] = field(default_factory=dict)  # until when, by robot
    _rates: dict[str, RateLimit] = field(default_factory=dict)
    _rate: RateLimit = field(default_factory=lambda: RateLimit(_ALL_PER_S, _ALL_PER_S, 0.0))

    def __len__(self) -> int:
        return len(self._heard)

    @property
    def every_s(self) -> float:
        """Give the seconds between two reports of a robot that nobody watches.

        It is one, and more for a fleet, of which the reports would else take a whole processor.
        """
        return max(1.0, len(self._heard) / _WANTED_PER_S)

    def admit(self, robot: str) -> Excess | None:
        """Count a report that ``robot`` wants to send; says where that is one too many."""
        now_s = self.clock()
        rate = self._rates.get(robot)
        if rate is None:
            if len(self._rates) >= _MOST_SENDERS:
                self._rates.clear()
            rate = self._rates[robot] = RateLimit(_ROBOT_PER_S, 2 * _ROBOT_PER_S, now_s)
        for bound, whose in ((rate, "this robot sends"), (self._rate, "all robots send")):
            wait_s = bound.wait_s(now_s)
            if wait_s > 0:
                reason = f"{whose} more than {bound.per_s:g} live reports a second"
                return Excess("quota", reason, wait_s)
        rate.take(1)
        self._rate.take(1)
        return None

    def put(self, robot: str, report: LiveReport) -> Excess | bool:
        """Keep a report in place of the robot's last one; returns whether somebody watches it.

        Where memory is short its pictures are left out.
        """
        now_s = self.clock()
        self._forget(now_s, FORGET_S)
        self._remove(robot)
        if len(self._heard) >= MAX_ROBOTS:
            self._forget(now_s, _SILENT_S)
        if len(self._heard) >= MAX_ROBOTS:
            return Excess("busy", f"{MAX_ROBOTS} robots are heard already", 60.0)
        numbers = report.model_dump_json(exclude={"cameras"}).encode()
        cameras = report.model_dump_json(include={"cameras"}).encode()[len(_CAMERAS) : -1]
        heard = _Heard(now_s, numbers, cameras, left_out=False)
        if not self._has_room(heard):
            self._forget(now_s, _SILENT_S)
        if not self._has_room(heard):
            heard = _Heard(now_s, numbers, _NONE, left_out=True)
        if not self._has_room(heard):
            return Excess("busy", f"live reports hold {self.held_bytes} bytes of memory", 60.0)
        self._heard[robot] = heard
        self.held_bytes += heard.size
        self.picture_bytes += len(heard.cameras)
        self.taken += 1
        return self._watched.get(robot, 0.0) > now_s

    def read(self, robots: Iterable[str] | None = None) -> bytes:
        """Give as JSON what was heard, by robot, and mark these robots as watched.

        Args:
            robots: names to give; None for every robot, of which the first by name are
                watched.
        """
        now_s = self.clock()
        self._forget(now_s, FORGET_S)
        asked = sorted(self._heard if robots is None else set(robots))
        names = [name for name in asked if name in self._heard]
        self._watched = {name: s for name, s in self._watched.items() if s > now_s}
        self._watched.update(dict.fromkeys(names[:MAX_WATCHED], now_s + WATCH_S))
        pieces, room = [], MAX_ANSWER_BYTES
        for name in names:
            heard = self._heard[name]
            room -= heard.size
            cameras, left_out = heard.cameras, heard.left_out
            if room < 0 and cameras != _NONE:
                cameras, left_out = _NONE, True
            said = {"age_s": round(now_s - heard.at_s, 3), "cameras_left_out": left_out}
            head = f"{json_text(name)}: {json_text(said)[:-1]}, ".encode()
            report = heard.numbers[:-1] + b', "cameras": ' + cameras + b"}"
            pieces.append(head + b'"report": ' + report + b"}")
        return b'{"robots": {' + b", ".join(pieces) + b"}}"

    def _has_room(self, heard: _Heard) -> bool:
        pictures = len(heard.cameras)
        return self.held_bytes + heard.size <= MAX_BYTES and (
            heard.cameras == _NONE or self.picture_bytes + pictures <= MAX_PICTURE_BYTES
        )

    def _remove(self, robot: str) -> None:
        heard = self._heard.pop(robot, None)
        if heard is not None:
            self.held_bytes -= heard.size
            self.picture_bytes -= len(heard.cameras)

    def _forget(self, now_s: float, silent_s: float) -> None:
        """Forget the robots that were silent for so long."""
        while self._heard:
            robot, heard = next(iter(self._heard.items()))
            if now_s - heard.at_s <= silent_s:
                return
            self._remove(robot)
