"""Puts the routes of the service together: health, status, chunks and policies."""

from __future__ import annotations

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wm_core.format.chunk import ChunkKey
from wm_core.link.trainer.access import Access
from wm_core.link.trainer.answers import not_found, wrong_method
from wm_core.link.trainer.chunk_routes import ChunkRoutes
from wm_core.link.trainer.policy_keys import PolicyKeys
from wm_core.link.trainer.policy_routes import PolicyRoutes
from wm_core.link.trainer.settings import POLICIES, STORE, ServeSettings
from wm_core.link.trainer.tokens import Tokens
from wm_core.store.ingest import Verdict, ingest, reconcile
from wm_core.store.ledger import LEDGER_NAME, Ledger


class PooledIngest:
    """Stores chunks in a few threads, each for itself."""

    def __init__(self, root: Path, ledger: Ledger, *, max_bytes: int, min_free_bytes: int) -> None:
        self._root, self._ledger = root, ledger
        self._ingest = partial(ingest, max_bytes=max_bytes, min_free_bytes=min_free_bytes)
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="ingest")

    def offer(self, key: ChunkKey, data: bytes, sha256: str) -> Future[Verdict]:
        """Begin to store a chunk; the result comes once it is durable."""
        return self._pool.submit(self._ingest, self._root, self._ledger, key, data, sha256)

    def counts(self) -> dict[str, int]:
        """Count what is stored and in quarantine."""
        return self._ledger.counts()

    def usage(self, robot: str) -> int:
        """Give the bytes that are stored of ``robot``."""
        return sum(row.bytes for row in self._ledger.since(0) if row.robot == robot)

    def backlog(self) -> tuple[int, int]:
        """Give the chunks, and their bytes, that wait to be stored."""
        return 0, 0

    def close(self) -> None:
        """Finish what was offered."""
        self._pool.shutdown()


class Application:
    """Answers the routes of one service.

    Args:
        settings: what to store and to accept.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.store = settings.root / STORE
        self.policies = settings.root / POLICIES
        self.access = Access(Tokens(settings.tokens) if settings.tokens else None)
        self.ledger = Ledger(self.store / LEDGER_NAME)
        self.reconciled = reconcile(self.store, self.ledger)
        self.intake = PooledIngest(
            self.store,
            self.ledger,
            max_bytes=settings.max_chunk_bytes,
            min_free_bytes=settings.min_free_bytes,
        )
        self.chunk_routes = ChunkRoutes(settings, self.access, self.intake)
        self.policy_routes = PolicyRoutes(
            self.policies,
            self.access,
            PolicyKeys(settings.policy_keys) if settings.policy_keys else None,
            settings.statement_s,
        )
        self.app = Starlette(
            routes=[
                Route("/v1/health", self.health),
                Route("/v1/status", self.status),
                *self.chunk_routes.routes,
                *self.policy_routes.routes,
            ],
            exception_handlers={404: not_found, 405: wrong_method},
        )

    @property
    def uploads(self) -> int:
        """Bodies that are being received or stored."""
        return self.chunk_routes.limits.uploads

    def drain(self) -> None:
        """Answer waiting requests at once, and refuse new uploads."""
        self.policy_routes.closing = True
        self.chunk_routes.drain()

    def close(self) -> None:
        """Finish what was offered and close the ledger."""
        self.intake.close()
        self.ledger.close()

    async def health(self, request: Request) -> Response:
        """Answer ``GET /v1/health``, for anyone."""
        return JSONResponse({"ok": True})

    async def status(self, request: Request) -> Response:
        """Answer ``GET /v1/status``: what is stored, quarantined and published."""
        refusal = self.access.refusal(request)
        if refusal:
            return refusal
        counts = await run_in_threadpool(self.intake.counts)
        versions = await run_in_threadpool(self.policy_routes.versions)
        free = shutil.disk_usage(self.store).free
        return JSONResponse({**counts, "policies": versions, "free_bytes": free})
