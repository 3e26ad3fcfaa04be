"""Serves robots over HTTP: receives chunks and sends policies (the URL names version 1).

``docs/http.md`` describes the protocol.  A chunk is acknowledged after the fsync of its file and
the commit of its row; sizes are checked before memory is taken; without a tokens file only peers
on the same machine are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from pydantic import Field
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from wm_core.contract.errors import ChunkRefused, StoreError
from wm_core.contract.files import try_lock, write_durably
from wm_core.contract.frozen import Frozen, ranged
from wm_core.contract.policy_folder import LATEST_NAME
from wm_core.format.chunk import ChunkKey
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.tokens import Tokens
from wm_core.store.ingest import MAX_CHUNK_BYTES, ingest, reconcile
from wm_core.store.ledger import LEDGER_NAME, Ledger

log = logging.getLogger(__name__)

STORE, POLICIES, SERVICE_FILE = "store", "policies", "service.json"
STATUS = {
    "stored": 201,
    "known": 200,
    "conflict": 409,
    "damaged": 400,
    "version": 415,
    "too_large": 413,
    "no_room": 507,
    "busy": 503,
}
_RETRY_S = {507: "10", 503: "1"}
_LOOK_S = 0.1  # how often a waiting request looks for a new version
_MAX_WAIT_S = 60.0
_DRAIN_BYTES, _DRAIN_S = 64 << 20, 5.0  # of a refused body that is discarded


class ServeSettings(Frozen):
    """Says what the service keeps, where it listens and what it takes in."""

    root: Path = Field(description="Run folder; receives the folders store and policies.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0: all, with tokens.")
    port: int = ranged(8765, 0, 65535, "TCP port to listen on; 0 picks a free one.")
    tokens: Path | None = Field(
        None, description="File of lines `robot sha256(token)`; None serves this machine only."
    )
    max_chunk_bytes: int = Field(MAX_CHUNK_BYTES, gt=0, description="Bytes of the largest chunk.")
    max_uploads: int = Field(8, gt=0, description="Uploads in memory at once; more must retry.")
    upload_s: float = Field(60.0, gt=0, description="Deadline in seconds for one upload.")
    min_free_bytes: int = Field(200_000_000, ge=0, description="Bytes of the disk to keep free.")


class Application:
    """Answers the routes of one service.

    Args:
        settings: what to store and to accept.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.store = settings.root / STORE
        self.policies = settings.root / POLICIES
        self.tokens = Tokens(settings.tokens) if settings.tokens else None
        self.ledger = Ledger(self.store / LEDGER_NAME)
        self.reconciled = reconcile(self.store, self.ledger)
        self.closing = False  #: waiting requests are answered at once
        self.uploads = 0  #: bodies that are being received
        self.app = Starlette(
            routes=[
                Route("/v1/health", self.health),
                Route("/v1/status", self.status),
                Route("/v1/chunks/{robot}/{session}/{seq:int}", self.put_chunk, methods=["PUT"]),
                Route("/v1/policies/{channel}", self.policy),
                Route("/v1/blobs/{sha256}", self.blob),
            ]
        )

    async def health(self, request: Request) -> Response:
        """Answer ``GET /v1/health``, for anyone."""
        return JSONResponse({"ok": True})

    async def status(self, request: Request) -> Response:
        """Answer ``GET /v1/status``: what is stored, quarantined and published."""
        refusal = self._refusal(request)
        if refusal:
            return refusal
        counts = await run_in_threadpool(self.ledger.counts)
        channels = {
            path.parent.name: json.loads(path.read_bytes())["version"]
            for path in self.policies.glob(f"*/{LATEST_NAME}")
        }
        free = shutil.disk_usage(self.store).free
        return JSONResponse({**counts, "policies": channels, "free_bytes": free})

    async def put_chunk(self, request: Request) -> Response:
        """Answer ``PUT /v1/chunks/{robot}/{session}/{seq}``: store a chunk, once."""
        path = request.path_params
        refusal = self._refusal(request, path["robot"])
        if refusal is None and self.uploads >= self.settings.max_uploads:
            refusal = _answer(503, f"more than {self.settings.max_uploads} uploads at once")
        sha256 = request.headers.get("x-content-sha256", "")
        if refusal is None and not _is_sha256(sha256):
            refusal = _answer(400, "expected the header X-Content-SHA256 with 64 hex digits")
        try:
            key = ChunkKey(path["robot"], path["session"], path["seq"]).check()
        except ChunkRefused as error:
            refusal = refusal or _answer(400, str(error))
        most = self.settings.max_chunk_bytes
        announced = request.headers.get("content-length", "")
        if refusal is None and announced.isdecimal() and int(announced) > most:
            refusal = _answer(413, f"expected at most {most} bytes, {announced} are announced")
        if refusal is not None:
            await _drain(request)
            return refusal
        self.uploads += 1
        try:
            data = await asyncio.wait_for(_body(request, most), self.settings.upload_s)
            if data is None:
                await _drain(request)
                return _answer(413, f"expected at most {most} bytes, more came")
            verdict = await run_in_threadpool(
                ingest,
                self.store,
                self.ledger,
                key,
                data,
                sha256,
                max_bytes=most,
                min_free_bytes=self.settings.min_free_bytes,
            )
        except asyncio.TimeoutError:
            return _answer(408, f"the body did not come within {self.settings.upload_s} s")
        except ClientDisconnect:  # no one receives this answer; the chunk will come again
            return _answer(400, "the body was cut")
        finally:
            self.uploads -= 1
        return _answer(STATUS[verdict.kind], verdict.reason, verdict=verdict.kind, sha256=sha256)

    async def policy(self, request: Request) -> Response:
        """Answer ``GET /v1/policies/{channel}`` with the latest manifest, once it is a new one."""
        refusal = self._refusal(request)
        if refusal:
            return refusal
        try:
            repository = PolicyRepository(self.policies, request.path_params["channel"])
            after = int(request.query_params.get("after", -1))
            wait_s = min(max(0.0, float(request.query_params.get("wait", 0))), _MAX_WAIT_S)
        except (StoreError, ValueError) as error:
            return _answer(400, str(error))
        have = request.query_params.get("have", "")
        deadline_s = time.monotonic() + wait_s
        looked_ns = -1
        while True:
            changed_ns = _changed_ns(self.policies / repository.channel / LATEST_NAME)
            if changed_ns != looked_ns:
                looked_ns, manifest = changed_ns, repository.latest()
                if manifest and (
                    manifest.policy.sha256 != have if have else manifest.version > after
                ):
                    return Response(manifest.model_dump_json(), media_type="application/json")
            if self.closing or time.monotonic() >= deadline_s:
                return Response(status_code=204)
            await asyncio.sleep(_LOOK_S)

    async def blob(self, request: Request) -> Response:
        """Answer ``GET /v1/blobs/{sha256}`` with a published file or a range of it."""
        refusal = self._refusal(request)
        if refusal:
            return refusal
        sha256 = request.path_params["sha256"]
        if _is_sha256(sha256):
            for home in sorted(self.policies.glob("*/")):
                path = PolicyRepository(self.policies, home.name).blob(sha256)
                if path is not None:
                    return FileResponse(path, media_type="application/octet-stream")
        return _answer(404, f"no published file has sha256 {sha256}; ask for the manifest again")

    def _refusal(self, request: Request, robot: str | None = None) -> Response | None:
        """Refuse a peer that may not ask, or not write as ``robot``; None where it may."""
        if self.tokens is None:
            if request.client and _is_loopback(request.client.host):
                return None
            return _answer(403, "without a tokens file only this machine is served")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = self.tokens.check(token.strip() if scheme.lower() == "bearer" else None, robot)
        if found == "unknown":
            return _answer(401, "expected the header `Authorization: Bearer TOKEN` of a robot")
        if found == "other":
            return _answer(403, f"this token may not write as {robot!r}")
        return None


class Service:
    """Listens for robots and answers them; ``run`` blocks, ``start`` does not.

    Args:
        settings: what to store and where to listen.

    Raises:
        StoreError: where another service has the root, nothing can be written there, or the
            address cannot be had.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._thread: threading.Thread | None = None
        self.settings = settings
        host, port = settings.host, settings.port
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, _lock_root(settings.root))
            try:
                self._socket = socket.create_server((host, port), backlog=256)
            except OSError as error:
                raise StoreError(f"cannot listen on {host}:{port}: {error}") from error
            opened.callback(self._socket.close)
            self.application = Application(settings)
            opened.callback(self.application.ledger.close)
            self._opened = opened.pop_all()
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self.application.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
        self._server = _Server(config, self)

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, or ``close`` from another thread.

        Raises:
            StoreError: where the disk has no room to say where the service listens.
        """
        with self._opened:
            try:
                self._server.run(sockets=[self._socket])
            finally:
                with contextlib.suppress(OSError):
                    (self.settings.root / SERVICE_FILE).unlink()

    def start(self) -> Service:
        """Serve in a thread; returns once requests are answered."""
        self._thread = threading.Thread(target=self.run, name="service", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        return self

    def close(self) -> None:
        """Stop a started service; a second call does nothing."""
        self._server.should_exit = self.application.closing = True
        if self._thread is not None:
            self._thread.join(10.0)

    def announce(self) -> None:
        """Write where the service listens to ``root/service.json``."""
        text = json.dumps({"url": self.url, "pid": os.getpid()})
        try:
            write_durably(self.settings.root / SERVICE_FILE, text.encode())
        except OSError as error:
            raise _unusable(self.settings.root, error) from error


class _Server(uvicorn.Server):
    """Runs Uvicorn, announces itself, answers waiting robots when it ends, and exits normally."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._service.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.application.closing = True
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGINT and SIGTERM without a failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _lock_root(root: Path) -> int:
    """Mark ``root`` as served by this process; returns the handle of the lock."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = try_lock(root / "service.lock")
    except OSError as error:
        raise _unusable(root, error) from error
    if handle is None:
        raise StoreError(f"{root} is already served by another process")
    return handle


def _unusable(root: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write to {root}: {error}; make room there or name another root")


async def _body(request: Request, most: int) -> bytes | None:
    """Receive the request's body; None as soon as it is larger than ``most`` bytes."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            return None
    return bytes(data)


async def _drain(request: Request) -> None:
    """Receive and discard a refused body, within bounds, so that the sender gets the answer."""

    async def discard() -> None:
        received = 0
        async for piece in request.stream():
            received += len(piece)
            if received > _DRAIN_BYTES:
                return

    with contextlib.suppress(ClientDisconnect, RuntimeError, asyncio.TimeoutError):
        await asyncio.wait_for(discard(), _DRAIN_S)


def _answer(status: int, reason: str, **more: str) -> JSONResponse:
    wait = {"Retry-After": _RETRY_S[status]} if status in _RETRY_S else None
    return JSONResponse({"reason": reason, **more}, status, headers=wait)


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
