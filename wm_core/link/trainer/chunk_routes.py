"""Receives chunks: checks who sends them and how large they are, then hands them to the intake."""

from __future__ import annotations

import asyncio
import math
import re
import sys
import time

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import ChunkKey
from wm_core.link.trainer.access import Access
from wm_core.link.trainer.answers import VERDICT_HEADER, About, answer, is_sha256
from wm_core.link.trainer.drained import Drained
from wm_core.link.trainer.limits import Excess, Upload, UploadLimits
from wm_core.link.trainer.metrics import Metrics
from wm_core.link.trainer.settings import ServeSettings
from wm_core.store.intake import Intake

_SEQ = re.compile(r"[0-9]{1,10}")
_MAX_NAME = 64  # characters of each part of a chunk's name that an answer repeats
MAX_BACKLOG = 512  #: chunks that wait to be stored
_ENDING = "the service is ending; it may be started again"


class ChunkRoutes:
    """Answers ``PUT /v1/chunks/{robot}/{session}/{seq}``.

    Args:
        settings: bounds of what is taken in.
        access: decides who may write.
        intake: stores the chunks.
    """

    def __init__(self, settings: ServeSettings, access: Access, intake: Intake) -> None:
        self.settings, self.access, self.intake = settings, access, intake
        self.limits = UploadLimits(settings, intake.usage)
        self.metrics: Metrics | None = None  #: counts the answers
        self.closing = False  #: new uploads are refused
        self._receiving: set[_Receipt] = set()
        self.routes = [Route("/v1/chunks/{robot}/{session}/{seq}", self.put, methods=["PUT"])]

    def drain(self) -> None:
        """Refuse new uploads and give those that are coming a last deadline."""
        self.closing = True
        for receipt in list(self._receiving):
            receipt.end_within(self.settings.drain_s)

    async def put(self, request: Request) -> Response:
        """Store a chunk, once, and say what became of it."""
        path, began_s = request.path_params, time.monotonic()
        sha256 = request.headers.get("x-content-sha256", "")
        about = About(
            "/".join(path[k][:_MAX_NAME] for k in ("robot", "session", "seq")),
            sha256 if is_sha256(sha256) else "",
        )
        refusal = self.access.refusal(request, path["robot"], about)
        if refusal is None:
            refusal = self._refusal(request, about)
        upload = None
        if refusal is None:
            admitted = self.limits.admit(path["robot"])
            if isinstance(admitted, Excess):
                refusal = _excess(admitted, about)
            else:
                upload = admitted
        if upload is None or refusal is not None:
            assert refusal is not None
            if self.metrics is not None:
                self.metrics.refused(refusal.headers[VERDICT_HEADER])
            return refusal if "connection" in refusal.headers else Drained(refusal, request)
        key = ChunkKey(path["robot"], path["session"], int(path["seq"]))
        with upload:
            try:
                made = await self._store(request, key, about, upload)
            except ClientDisconnect:  # no one receives this answer; the chunk will come again
                made = answer("slow", "the body was cut", about)
            if self.metrics is not None:
                took_s = time.monotonic() - began_s
                verdict = made.headers[VERDICT_HEADER]
                self.metrics.answered(key.robot, verdict, upload.held_bytes, took_s)
            return made

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
            return answer("draining", _ENDING, about)
        most = self.settings.max_chunk_bytes
        announced = request.headers.get("content-length", "0")
        if len(announced) > 18 or (announced.isdecimal() and int(announced) > most):
            reason = f"expected at most {most} bytes, {announced[:20]} are announced"
            return answer("too_large", reason, about)
        offers, _ = self.intake.backlog()
        if offers > MAX_BACKLOG:
            return answer("busy", f"{offers} chunks wait to be stored", about)
        return None

    async def _store(
        self, request: Request, key: ChunkKey, about: About, upload: Upload
    ) -> Response:
        """Receive the body within its deadline and wait for the intake's verdict."""
        receipt = _Receipt(self.settings, upload)
        self._receiving.add(receipt)
        try:
            data = await receipt.body(request)
        finally:
            self._receiving.discard(receipt)
        if isinstance(data, Excess):
            return Drained(_excess(data, about), request)
        verdict = await asyncio.wrap_future(self.intake.offer(key, data, about.sha256))
        return answer(verdict.kind, verdict.reason, about)


class _Receipt:
    """Receives one body, as long as its sender keeps up a minimal rate.

    Seconds that an upload may stall are earned back by what it sends, up to ``upload_s``: a slow
    link passes, a sender of a byte a second does not.
    """

    def __init__(self, settings: ServeSettings, upload: Upload) -> None:
        self._settings, self._upload = settings, upload
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._until_s = self._loop.time() + settings.upload_s
        self._last_s = math.inf  # of a service that ends
        self._expired = False
        self._timer: asyncio.TimerHandle | None = None

    async def body(self, request: Request) -> bytes | Excess:
        """Give the whole body, or the bound that it exceeds."""
        most, settings = self._settings.max_chunk_bytes, self._settings
        pieces, size = [], 0
        self._check()
        try:
            async for piece in request.stream():
                pieces.append(piece)
                size += len(piece)
                if size > most:
                    return Excess("too_large", f"expected at most {most} bytes, more came")
                excess = self._upload.hold(len(piece))
                if excess is not None:
                    return excess
                earned_s = self._until_s + len(piece) / settings.min_bytes_per_s
                self._until_s = min(earned_s, self._loop.time() + settings.upload_s)
        except asyncio.CancelledError:
            if not self._expired:
                raise
            if sys.version_info >= (3, 11) and self._task is not None:
                self._task.uncancel()
            return self._too_slow(size)
        finally:
            if self._timer is not None:
                self._timer.cancel()
        return b"".join(pieces)

    def end_within(self, seconds: float) -> None:
        """Receive no longer than ``seconds`` from now on."""
        self._last_s = self._loop.time() + seconds
        self._check()

    def _check(self) -> None:
        """End the receipt where its deadline has passed; else look again when that may be."""
        if self._timer is not None:
            self._timer.cancel()
        left_s = min(self._until_s, self._last_s) - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._check)
        elif self._task is not None:
            self._expired = True
            self._task.cancel()

    def _too_slow(self, size: int) -> Excess:
        if self._last_s < math.inf:
            return Excess("draining", _ENDING)
        return Excess(
            "slow",
            f"after {size} bytes the body stalled for {self._settings.upload_s:g} s, or came with "
            f"less than {self._settings.min_bytes_per_s:g} bytes per second",
        )


def _excess(excess: Excess, about: About) -> Response:
    return answer(excess.verdict, excess.reason, about, retry_s=excess.retry_s)
