"""Bounds what robots may take of the service: uploads, memory, rates and stored bytes.

Everything is counted by robot as well as in all, so that one bad robot cannot starve the others.
Bytes of bodies are counted as they arrive, which is when memory is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from wm_core.link.trainer.settings import ServeSettings

_MAX_IDLE_ROBOTS = 4096  # robots remembered that upload nothing just now
_ROBOT_SHARE = 8  # a robot's bodies may take this fraction of the memory for bodies


class RateLimit:
    """Lets through ``per_s`` units a second on average and ``burst`` at once; 0: no bound."""

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self.per_s, self.burst = per_s, burst
        self._left, self._at_s = burst, now_s

    def wait_s(self, now_s: float) -> float:
        """Give the seconds until a unit may pass; 0 where it may pass now.

        One that is larger than what is left may pass as long as something is left: later ones
        wait until it is paid for.
        """
        if not self.per_s:
            return 0.0
        self._left = min(self.burst, self._left + (now_s - self._at_s) * self.per_s)
        self._at_s = now_s
        return 0.0 if self._left > 0 else -self._left / self.per_s + 1.0 / self.per_s

    def take(self, units: float) -> None:
        """Count ``units`` that passed."""
        self._left -= units


@dataclass(frozen=True, slots=True)
class Excess:
    """Says which bound a request would exceed."""

    verdict: str
    reason: str
    retry_s: float | None = None


@dataclass(slots=True)
class _Use:
    """What one robot uses just now."""

    requests: RateLimit
    bytes: RateLimit
    uploads: int = 0
    held_bytes: int = 0


@dataclass
class Upload:
    """Holds one robot's place among the uploads; leaving the block gives everything back."""

    _limits: UploadLimits
    _use: _Use
    held_bytes: int = field(default=0)  #: of the body, in memory

    def __enter__(self) -> Upload:
        self._use.uploads += 1
        self._limits.uploads += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._use.uploads -= 1
        self._limits.uploads -= 1
        self._use.held_bytes -= self.held_bytes
        self._limits.held_bytes -= self.held_bytes

    def hold(self, size: int) -> Excess | None:
        """Count ``size`` more bytes of the body in memory; says which bound they exceed."""
        self.held_bytes += size
        self._use.held_bytes += size
        self._limits.held_bytes += size
        self._use.bytes.take(size)
        if self._use.held_bytes > self._limits.robot_memory_bytes:
            most = self._limits.robot_memory_bytes
            return Excess("busy", f"this robot's uploads hold more than {most} bytes of memory")
        if self._limits.held_bytes > self._limits.memory_bytes:
            return Excess("busy", f"all uploads hold more than {self._limits.memory_bytes} bytes")
        return None


class UploadLimits:
    """Admits uploads within the bounds of ``settings``; for one thread.

    Args:
        settings: the bounds.
        usage: gives the bytes that are stored of a robot.
        clock: gives seconds that only grow.
    """

    def __init__(
        self,
        settings: ServeSettings,
        usage: Callable[[str], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._usage, self._clock = settings, usage, clock
        self._robots: dict[str, _Use] = {}
        self.uploads = 0  #: bodies that are being received or stored
        self.held_bytes = 0  #: of bodies in memory
        self.memory_bytes = max(settings.upload_memory_bytes, settings.max_chunk_bytes)
        share = self.memory_bytes // _ROBOT_SHARE
        self.robot_memory_bytes = max(share, settings.max_chunk_bytes)

    def admit(self, robot: str) -> Upload | Excess:
        """Give a place for one upload of ``robot``, or say why there is none."""
        settings, use = self._settings, self._of(robot)
        most = settings.max_uploads_per_robot
        if use.uploads >= most:
            return Excess("busy", f"more than {most} uploads of this robot at once")
        if self.uploads >= settings.max_uploads:
            return Excess("busy", f"more than {settings.max_uploads} uploads at once")
        now_s = self._clock()
        for rate, what in ((use.requests, "chunks"), (use.bytes, "bytes")):
            wait_s = rate.wait_s(now_s)
            if wait_s > 0:
                reason = f"this robot sends more than {rate.per_s:g} {what} a second"
                return Excess("quota", reason, wait_s)
        if settings.robot_quota_bytes:
            stored = self._usage(robot)
            if stored >= settings.robot_quota_bytes:
                reason = (
                    f"{stored} bytes of this robot are stored, its quota is "
                    f"{settings.robot_quota_bytes} (--robot-quota-bytes)"
                )
                return Excess("quota", reason, 60.0)
        use.requests.take(1)
        return Upload(self, use)

    def _of(self, robot: str) -> _Use:
        use = self._robots.get(robot)
        if use is None:
            if len(self._robots) > _MAX_IDLE_ROBOTS:
                self._robots = {name: u for name, u in self._robots.items() if u.uploads}
            settings, now_s = self._settings, self._clock()
            chunks, size = settings.robot_chunks_per_s, settings.robot_bytes_per_s
            use = self._robots[robot] = _Use(
                RateLimit(chunks, 2 * chunks, now_s),
                RateLimit(size, max(2.0 * size, 1.0), now_s),
            )
        return use
