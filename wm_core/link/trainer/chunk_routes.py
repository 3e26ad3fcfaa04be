"""Receives chunks: checks who sends them and how large they are, then hands them to the intake."""

from __future__ import annotations

import asyncio
import contextlib
import re
from concurrent.futures import Future
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import ChunkKey
from wm_core.link.trainer.access import Access
from wm_core.link.trainer.answers import About, answer, is_sha256
from wm_core.link.trainer.settings import ServeSettings
from wm_core.store.ingest import Verdict

_SEQ = re.compile(r"[0-9]{1,10}")
_MAX_NAME = 64  # characters of each part of a chunk's name that an answer repeats
_DRAIN_BYTES, _DRAIN_S = 64 << 20, 5.0  # of a refused body that is discarded


class Intake(Protocol):
    """Stores chunks for good."""

    def offer(self, key: ChunkKey, data: bytes, sha256: str) -> Future[Verdict]:
        """Begin to store a chunk; the result comes once it is durable."""
        ...


class ChunkRoutes:
    """Answers ``PUT /v1/chunks/{robot}/{session}/{seq}``.

    Args:
        settings: bounds of what is taken in.
        access: decides who may write.
        intake: stores the chunks.
    """

    def __init__(self, settings: ServeSettings, access: Access, intake: Intake) -> None:
        self.settings, self.access, self.intake = settings, access, intake
        self.uploads = 0  #: bodies that are being received or stored
        self.closing = False  #: new uploads are refused
        self.routes = [Route("/v1/chunks/{robot}/{session}/{seq}", self.put, methods=["PUT"])]

    async def put(self, request: Request) -> Response:
        """Store a chunk, once, and say what became of it."""
        path = request.path_params
        sha256 = request.headers.get("x-content-sha256", "")
        about = About(
            "/".join(path[k][:_MAX_NAME] for k in ("robot", "session", "seq")),
            sha256 if is_sha256(sha256) else "",
        )
        refusal = self.access.refusal(request, path["robot"], about)
        if refusal is None:
            refusal = self._refusal(request, about)
        if refusal is not None:
            return _Drained(refusal, request)
        key = ChunkKey(path["robot"], path["session"], int(path["seq"]))
        self.uploads += 1
        try:
            return await self._store(request, key, about)
        except ClientDisconnect:  # no one receives this answer; the chunk will come again
            return answer("slow", "the body was cut", about)
        finally:
            self.uploads -= 1

    def _refusal(self, request: Request, about: About) -> Response | None:
        """Refuse by what the head of the request says; None where the body may come."""
        path = request.path_params
        if not _SEQ.fullmatch(path["seq"]):
            got = path["seq"][:_MAX_NAME]
            return answer("damaged", f"expected a sequence number, got {got!r}", about)
        try:
            ChunkKey(path["robot"], path["session"], int(path["seq"])).check()
        except ChunkRefused as error:
            return answer("damaged", str(error), about)
        if not about.sha256:
            reason = "expected the header X-Content-SHA256 with 64 hex digits"
            return answer("damaged", reason, about)
        if self.closing:
            return answer("draining", "the service is ending; it may be started again", about)
        most = self.settings.max_chunk_bytes
        announced = request.headers.get("content-length", "0")
        if len(announced) > 18 or (announced.isdecimal() and int(announced) > most):
            reason = f"expected at most {most} bytes, {announced[:20]} are announced"
            return answer("too_large", reason, about)
        if self.uploads >= self.settings.max_uploads:
            reason = f"more than {self.settings.max_uploads} uploads at once"
            return answer("busy", reason, about)
        return None

    async def _store(self, request: Request, key: ChunkKey, about: About) -> Response:
        """Receive the body within its deadline and wait for the intake's verdict."""
        most = self.settings.max_chunk_bytes
        try:
            data = await asyncio.wait_for(_body(request, most), self.settings.upload_s)
        except asyncio.TimeoutError:
            reason = f"the body did not come within {self.settings.upload_s} s"
            return answer("slow", reason, about)
        if data is None:
            reason = f"expected at most {most} bytes, more came"
            return _Drained(answer("too_large", reason, about), request)
        verdict = await asyncio.wrap_future(self.intake.offer(key, data, about.sha256))
        return answer(verdict.kind, verdict.reason, about)


async def _body(request: Request, most: int) -> bytes | None:
    """Receive the request's body; None as soon as it is larger than ``most`` bytes."""
    pieces, size = [], 0
    async for piece in request.stream():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            return None
    return b"".join(pieces)


class _Drained(Response):
    """Sends a refusal at once, then discards the request's body within bounds.

    A peer that is still sending would otherwise find its connection reset, and the answer gone.
    """

    def __init__(self, refusal: Response, request: Request) -> None:
        super().__init__(refusal.body, refusal.status_code)
        self.raw_headers = refusal.raw_headers
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        with contextlib.suppress(ClientDisconnect, asyncio.TimeoutError):
            await asyncio.wait_for(self._discard(receive), _DRAIN_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _discard(self, receive: Receive) -> None:
        received, more = 0, True
        while more and received <= _DRAIN_BYTES:
            message = await receive()
            received += len(message.get("body", b""))
            more = message.get("more_body", False)
