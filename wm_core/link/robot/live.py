"""Tells the trainer how the robot is doing, several times a second while somebody watches.

Only the newest state is kept and only the newest is sent: what could not be sent in time is left
out.  Nothing of this is experience, and nothing waits for it.  While nobody watches, numbers go
once a second and no pictures at all.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from pydantic import Field

from wm_core.contract.files import json_object
from wm_core.contract.frozen import ranged
from wm_core.contract.live import MAX_CAMERAS, MAX_REPORT_BYTES, LiveCamera, LiveReport
from wm_core.format.pictures import jpeg_bytes
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import BandwidthCap, ConnectionSettings, Reply
from wm_core.link.robot.worker import Worker

SIDE = 128  #: most pixels of a picture's side
_QUALITY = 80
_UNWATCHED_S = 1.0  #: between two reports while nobody watches ...
_RAREST_S = 60.0  #: ... or as the trainer of many robots asks, at most
_ROOM_BYTES = MAX_REPORT_BYTES - 40_000  #: of a report's pictures, as base64
_DENIED_S = 30.0  #: after a refusal of the token ...
_UNKNOWN_S = 60.0  #: ... and from a trainer that does not know these reports
_COUNTED = ("sent", "pictures", "bytes_sent", "refused", "retries")


class LiveSettings(ConnectionSettings):
    """Says whether and how often the trainer hears how the robot is doing."""

    enabled: bool = Field(
        True, description="Whether the trainer hears how the robot is doing, for its live page"
    )
    rate_hz: float = ranged(
        5.0, 0.1, 20, "Reports per second while somebody watches; else there is one per second"
    )
    connect_s: float = ranged(2.0, 0.001, 3600, "Seconds to wait for a connection")
    read_s: float = ranged(2.0, 0.001, 3600, "Seconds to wait for the answer to a report")
    backoff_most_s: float = ranged(
        5.0, 0.001, 3600, "Most seconds to wait after repeated failures"
    )


class LiveSnapshot(NamedTuple):
    """Holds what a robot would say of itself at this moment."""

    report: LiveReport  #: without pictures
    images: Mapping[str, tuple[int, np.ndarray]] = {}  #: ns since 1970 and (H, W, 3) uint8


class LiveSender(Worker):
    """Sends what the robot says of itself to its trainer, in a thread.

    Args:
        url: of the trainer's service.
        robot: name of this robot.
        snapshot: gives the newest state, in this thread, with pictures only if asked; None while
            there is none.  It reads what the control thread left behind, and never waits for it.
        token: the robot's token; None where the service is on the same machine without one.
        settings: how often, and deadlines.
        access: certificates and proxy.
        cap: bounds the bytes per second, together with others that have the same.
        rest_s: gives the seconds until the control thread has just done its work.
    """

    def __init__(
        self,
        url: str,
        *,
        robot: str,
        snapshot: Callable[[bool], LiveSnapshot | None],
        token: str | None = None,
        settings: LiveSettings | None = None,
        access: AccessSettings | None = None,
        cap: BandwidthCap | None = None,
        rest_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.settings = settings or LiveSettings()
        super().__init__("live", _COUNTED, url, token, self.settings, access=access, cap=cap)
        self._path, self._snapshot = f"/v1/live/{robot}", snapshot
        self._rest_s = rest_s
        self._pictures = _Pictures()
        self._next_s = 0.0  # time.monotonic() of the next report
        self._unwatched_s = _UNWATCHED_S
        self.watched = False  #: somebody looks
        self._start()

    def counters(self) -> dict[str, int | str]:
        """Give what was sent and refused, whether somebody watches, and the last error."""
        return {**self._counters.read(), "watched": int(self.watched)}

    def _work(self) -> None:
        self._stop.wait(max(0.0, self._next_s - time.monotonic()))
        self._stop.wait(min(_UNWATCHED_S, self._rest_s()))
        if self._stop.is_set():
            return
        every_s = 1.0 / self.settings.rate_hz if self.watched else self._unwatched_s
        self._next_s = max(self._next_s + every_s, time.monotonic())
        snapshot = self._snapshot(self.watched)
        if snapshot is None:
            self._next_s = time.monotonic() + every_s
            return
        watched = False
        try:
            watched = self._send(snapshot)
        finally:
            if watched and not self.watched:  # whoever looks wants to see something now
                self._next_s = 0.0
            self.watched = watched

    def _send(self, snapshot: LiveSnapshot) -> bool:
        """Send a report; returns whether somebody watches."""
        cameras = self._pictures.encode(snapshot.images)
        body = snapshot.report.model_copy(update={"cameras": cameras}).model_dump_json().encode()
        headers = {"Content-Type": "application/json"}
        reply = self._client.request("POST", self._path, body=body, headers=headers)
        if reply.status != 200:
            self._counters.count("refused")
            self._retry_later(*_refusal(reply))
            return False
        answer = json_object(reply.body)
        watched, every_s = answer.get("watched"), answer.get("every_s")
        if not isinstance(watched, bool):
            raise ConnectionError("an answer came that is not of a trainer")
        if isinstance(every_s, int | float) and _UNWATCHED_S <= every_s <= _RAREST_S:
            self._unwatched_s = every_s
        self._backoff.reset()
        self._counters.count("sent")
        self._counters.count("pictures", len(cameras))
        self._counters.count("bytes_sent", len(body))
        self._counters.set_error("")
        return watched


class _Pictures:
    """Encodes pictures for a report, each array once, as many as there is room for."""

    def __init__(self) -> None:
        self._encoded: dict[str, tuple[np.ndarray, LiveCamera]] = {}
        self._turn = 0  # the camera that comes first, so that none is always left out

    def encode(self, images: Mapping[str, tuple[int, np.ndarray]]) -> dict[str, LiveCamera]:
        """Make the pictures of ``images``: ns since 1970 and (H, W, 3) uint8 by name."""
        names = sorted(images)
        first = self._turn % len(names) if names else 0
        found: dict[str, LiveCamera] = {}
        room = _ROOM_BYTES
        for name in names[first:] + names[:first]:
            t_ns, image = images[name]
            kept = self._encoded.get(name)
            if kept is None or kept[0] is not image:
                text = base64.b64encode(jpeg_of(image)).decode()
                kept = image, LiveCamera.model_construct(t_ns=t_ns, jpeg=text)
            self._encoded[name] = kept
            room -= len(kept[1].jpeg)
            if room < 0 or len(found) == MAX_CAMERAS:
                self._turn = names.index(name)
                break
            found[name] = kept[1]
        self._encoded = {name: kept for name, kept in self._encoded.items() if name in images}
        return found


def jpeg_of(image: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as a JPEG picture of at most ``SIDE`` pixels a side."""
    from PIL import Image

    step = max(1, max(image.shape[:2]) // (2 * SIDE))  # of a large one a part is enough
    picture = Image.fromarray(np.ascontiguousarray(image[::step, ::step]))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return jpeg_bytes(picture, _QUALITY)


def rest_in_s(since_s: float, period_s: float) -> float:
    """Give the seconds until a loop that works once in ``period_s`` has just done so.

    Two threads share one interpreter: what is done right behind a tick does not meet the next.

    Args:
        since_s: seconds since the loop did its work; after some periods it counts as stopped.
        period_s: between two times that it works.
    """
    if not 0.0 < since_s < 3.0 * period_s:
        return 0.0
    phase_s = since_s % period_s
    return 0.0 if phase_s < period_s / 4 else 1.05 * period_s - phase_s


def _refusal(reply: Reply) -> tuple[str, float]:
    """Say why a report was refused, and after how many seconds it makes sense to try again."""
    least_s = {401: _DENIED_S, 403: _DENIED_S, 404: _UNKNOWN_S, 405: _UNKNOWN_S}
    reason = json_object(reply.body).get("reason", "")
    words = f"{reply.status}: {str(reason)[:300]}"
    return words, max(reply.retry_after_s, least_s.get(reply.status, 0.0))
