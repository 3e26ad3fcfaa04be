"""Uploads sealed chunks to the trainer, oldest first, until each is acknowledged.

An acknowledgement repeats the chunk's hash; only then is the file deleted (or kept as a black
box).  A chunk that the trainer refuses for good is quarantined with the reason.  Without a trainer
the uploader keeps trying, ever more slowly, and the spool keeps its bound.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from pathlib import Path

from wm_core.contract.files import json_object
from wm_core.contract.frozen import ranged
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.black_box import BlackBox
from wm_core.link.robot.client import BandwidthCap, ConnectionSettings, Reply
from wm_core.link.robot.journal import SpoolSession, Waiting, sessions_in
from wm_core.link.robot.worker import Worker

log = logging.getLogger(__name__)

_REFUSED = (409, 413, 415)  #: statuses after which no later attempt can succeed
_DAMAGED = 400  #: perhaps damaged on the way: tried a few times before it counts as refused
_DAMAGED_ATTEMPTS = 3
_LOOK_S = 0.2  #: how often an empty spool is looked at
_BATCH = 64  #: chunks between two looks at the spool
_COUNTED = ("acked", "acked_before", "bytes_sent", "refused", "retries", "denied")


class UploaderSettings(ConnectionSettings):
    """Sets deadlines and bounds of the uploader."""

    denied_s: float = ranged(
        30.0, 0.001, 3600, "Seconds to wait after the trainer refused the token"
    )
    bytes_per_s: float = ranged(0.0, 0, 1e12, "Most bytes per second that are sent; 0: no bound")
    keep_bytes: int = ranged(0, 0, 2**62, "Bytes of acknowledged chunks to keep, as a black box")
    keep_s: float = ranged(
        0.0, 0, 1e9, "Seconds for which acknowledged chunks are kept at most; 0: no such bound"
    )
    refused_bytes: int = ranged(
        200_000_000, 0, 2**62, "Bytes of chunks to keep that the trainer refused"
    )


class Uploader(Worker):
    """Empties a spool folder, with all its sessions and robots, in a thread.

    Args:
        spool_folder: the folder that ``Spool`` fills.
        url: of the trainer's service, such as ``http://trainer:8765``.
        token: the robot's token; None where the service is on the same machine without one.
        settings: deadlines and bounds.
        access: certificates and proxy; None for those of the system.
    """

    def __init__(
        self,
        spool_folder: Path,
        *,
        url: str,
        token: str | None = None,
        settings: UploaderSettings | None = None,
        access: AccessSettings | None = None,
    ) -> None:
        self._folder, self.settings = Path(spool_folder), settings or UploaderSettings()
        rate = self.settings.bytes_per_s
        cap = BandwidthCap(rate) if rate else None
        super().__init__("uploader", _COUNTED, url, token, self.settings, access=access, cap=cap)
        self._waiting: list[Waiting] = []
        self._black_box = BlackBox(
            self._folder,
            keep_bytes=self.settings.keep_bytes,
            keep_s=self.settings.keep_s,
            refused_bytes=self.settings.refused_bytes,
        )
        self._denied_until: dict[str, float] = {}  # robot -> time.monotonic()
        self._damaged: Counter[Path] = Counter()
        self._empty: dict[Path, int] = {}  # session folder without a chunk -> its mtime_ns
        self._created: dict[Path, int] = {}
        self._start()

    def counters(self) -> dict[str, int | float | str]:
        """Give what was sent and acknowledged, what waits and how long, and the last error."""
        with self._lock:
            ages = [time.time() - chunk.sealed_s for chunk in self._waiting]
            return {
                **self._counters.read(),
                "pending_chunks": len(self._waiting),
                "pending_bytes": sum(chunk.bytes for chunk in self._waiting),
                "oldest_age_s": max(ages, default=0.0),
            }

    def drain(self, timeout_s: float) -> bool:
        """Wait until the spool is empty; returns whether that happened in time."""
        deadline_s = time.monotonic() + timeout_s
        while any(session.waiting() for session in sessions_in(self._folder)):
            if time.monotonic() > deadline_s or not self._thread.is_alive():
                return False
            time.sleep(0.05)
        return True

    def _work(self) -> None:
        batch = self._look()
        self._black_box.tidy()
        if not batch:
            self._stop.wait(_LOOK_S)
        for chunk in batch[:_BATCH]:
            if self._stop.is_set() or not self._offer(chunk):
                break

    def _look(self) -> list[Waiting]:
        """Find the chunks that wait and may be sent now, oldest first."""
        found: list[Waiting] = []
        for session in sessions_in(self._folder):
            try:
                changed_ns = session.path.stat().st_mtime_ns
            except FileNotFoundError:
                continue
            if self._empty.get(session.path) == changed_ns:
                continue
            chunks = session.waiting(self._created_ns(session))
            if chunks:
                found.extend(chunks)
            elif time.time_ns() - changed_ns > 10**9:  # clocks of folders are coarse
                self._empty[session.path] = changed_ns
        found.sort()
        with self._lock:
            self._waiting = found
        now_s = time.monotonic()  # chunks that may be sent must not wait behind the others
        return [c for c in found if self._denied_until.get(c.key.robot, 0.0) <= now_s]

    def _created_ns(self, session: SpoolSession) -> int:
        if session.path not in self._created:
            journal = session.journal()
            if journal is None:  # not written yet, or damaged: read again next time
                return 0
            self._created[session.path] = journal.created_ns
        return self._created[session.path]

    def _offer(self, chunk: Waiting) -> bool:
        """Send one chunk and act on the reply; returns False where the round should end."""
        if self._denied_until.get(chunk.key.robot, 0.0) > time.monotonic():
            return True
        try:
            data = chunk.path.read_bytes()
        except FileNotFoundError:  # the spool evicted it at its bound
            return True
        sha256 = hashlib.sha256(data).hexdigest()
        robot, session, seq = chunk.key
        reply = self._client.request(
            "PUT",
            f"/v1/chunks/{robot}/{session}/{seq}",
            body=data,
            headers={"X-Content-SHA256": sha256, "Content-Type": "application/x-mcap"},
        )
        self._counters.count("bytes_sent", len(data))
        return self._act_on(reply, chunk, sha256)

    def _act_on(self, reply: Reply, chunk: Waiting, sha256: str) -> bool:
        answer = json_object(reply.body)
        reason = str(answer.get("reason", ""))
        if reply.status in (200, 201) and answer.get("sha256") == sha256:
            self._acknowledged(chunk, before=reply.status == 200)
            return True
        if reply.status == _DAMAGED:
            self._damaged[chunk.path] += 1
        if reply.status in _REFUSED or self._damaged[chunk.path] >= _DAMAGED_ATTEMPTS:
            self._refused(chunk, f"{reply.status}: {reason}")
            return True
        if reply.status in (401, 403):
            self._counters.count("denied")
            self._counters.set_error(f"{reply.status}: {reason}")
            if reply.status == 403:  # other robots' chunks may still pass
                self._denied_until[chunk.key.robot] = time.monotonic() + self.settings.denied_s
                return True
            self._stop.wait(self.settings.denied_s)
            return False
        error = f"{reply.status}: {reason or 'not an answer of this protocol'}"
        self._retry_later(error, reply.retry_after_s)
        return False

    def _acknowledged(self, chunk: Waiting, *, before: bool) -> None:
        self._backoff.reset()
        self._damaged.pop(chunk.path, None)
        self._counters.count("acked")
        if before:
            self._counters.count("acked_before")
        self._counters.set_error("")
        self._black_box.acknowledged(chunk)
        with self._lock:
            self._waiting = [c for c in self._waiting if c is not chunk]

    def _refused(self, chunk: Waiting, reason: str) -> None:
        self._backoff.reset()
        self._damaged.pop(chunk.path, None)
        self._black_box.refused(chunk, reason)
        self._counters.count("refused")
        self._counters.set_error(f"chunk {chunk.key.seq} refused, {reason}")
