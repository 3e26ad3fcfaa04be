"""Answers people and machines who watch the service: alive, ready, status and metrics."""

from __future__ import annotations

import shutil

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wm_core.link.trainer.access import Access
from wm_core.link.trainer.chunk_routes import MAX_BACKLOG, ChunkRoutes
from wm_core.link.trainer.connections import Seats
from wm_core.link.trainer.live_board import LiveBoard
from wm_core.link.trainer.metrics import MAX_ROBOTS, Metrics, Readings
from wm_core.link.trainer.policy_routes import PolicyRoutes
from wm_core.link.trainer.settings import ServeSettings
from wm_core.store.intake import Intake

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_COUNTED = {
    "wm_stored_chunks": "chunks",
    "wm_stored_steps": "steps",
    "wm_stored_bytes": "bytes",
    "wm_quarantined_chunks": "quarantined",
    "wm_quarantined_bytes": "quarantined_bytes",
    "wm_commits": "groups",
    "wm_committed_chunks": "grouped",
}


class HealthRoutes:
    """Answers ``/v1/health``, ``/healthz``, ``/v1/status`` and ``/metrics``.

    Args:
        settings: of the service.
        access: decides who may read status and metrics; health is for anyone.
        intake: whose counts are told.
        chunks: whose uploads are told.
        policies: whose versions are told.
    """

    def __init__(
        self,
        settings: ServeSettings,
        access: Access,
        intake: Intake,
        chunks: ChunkRoutes,
        policies: PolicyRoutes,
    ) -> None:
        self._settings, self._access, self._intake = settings, access, intake
        self._chunks, self._policies = chunks, policies
        self.seats: Seats | None = None  #: connections, once there is a door
        self.live: LiveBoard | None = None  #: what robots say of themselves
        self.metrics = Metrics(self._read)
        self.routes = [
            Route("/v1/health", self.health),
            Route("/healthz", self.ready),
            Route("/v1/status", self.status),
            Route("/metrics", self.scraped),
        ]

    async def health(self, request: Request) -> Response:
        """Answer ``GET /v1/health``, for anyone: the service is there."""
        return JSONResponse({"ok": True})

    async def ready(self, request: Request) -> Response:
        """Answer ``GET /healthz``, for anyone: whether chunks are taken in, or why not."""
        reasons = await run_in_threadpool(self._reasons)
        return JSONResponse({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    async def status(self, request: Request) -> Response:
        """Answer ``GET /v1/status``: what is stored, quarantined and published."""
        refusal = self._access.refusal(request)
        if refusal:
            return refusal
        counts = await run_in_threadpool(self._intake.counts)
        versions = await run_in_threadpool(self._policies.versions)
        return JSONResponse({**counts, "policies": versions, "free_bytes": self._free_bytes()})

    async def scraped(self, request: Request) -> Response:
        """Answer ``GET /metrics`` as Prometheus reads it, for whoever may read the status."""
        refusal = self._access.refusal(request)
        if refusal:
            return refusal
        return Response(await run_in_threadpool(self.metrics.text), media_type=_TEXT)

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._settings.root).free

    def _reasons(self) -> list[str]:
        """List why no chunk would be stored just now."""
        reasons = ["the service is ending"] if self._chunks.closing else []
        try:
            free = self._free_bytes()
            least = self._settings.min_free_bytes
            if free < least:
                reasons.append(f"{free} bytes of the disk are free, {least} must stay so")
        except OSError as error:
            reasons.append(f"the store's folder cannot be read: {error.strerror}")
        offers, _ = self._intake.backlog()
        if offers > MAX_BACKLOG:
            reasons.append(f"{offers} chunks wait to be stored")
        if self._access.tokens is not None and not self._access.tokens.readable:
            reasons.append("the tokens file cannot be read")
        return reasons

    def _running(self) -> dict[str, float]:
        """Give the version that each robot says it runs, of the first thousand robots."""
        said = list(self._policies.running.items())[:MAX_ROBOTS]
        versions = ((robot, report.get("version")) for robot, report in said)
        return {robot: float(v) for robot, v in versions if isinstance(v, (int, float))}

    def _read(self) -> Readings:
        counts = self._intake.counts()
        offers, size = self._intake.backlog()
        limits = self._chunks.limits
        readings: Readings = {name: counts[key] for name, key in _COUNTED.items() if key in counts}
        readings |= {
            "wm_uploads": limits.uploads,
            "wm_upload_bytes": limits.held_bytes,
            "wm_backlog_chunks": offers,
            "wm_backlog_bytes": size,
            "wm_ready": float(not self._reasons()),
            "wm_policy_version": {k: float(v) for k, v in self._policies.versions().items()},
            "wm_robot_policy_version": self._running(),
            "wm_disk_free_bytes": self._free_bytes(),
        }
        if self.seats is not None:
            readings |= {
                "wm_connections": len(self.seats),
                "wm_connections_refused": self.seats.refused,
                "wm_connections_cut": self.seats.cut,
            }
        if self.live is not None:
            readings |= {
                "wm_live_robots": len(self.live),
                "wm_live_bytes": self.live.held_bytes,
                "wm_live_reports": self.live.taken,
                "wm_live_refused": self.live.refused,
            }
        return readings
