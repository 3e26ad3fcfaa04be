"""Sends a refusal whose sender may still be sending, so that the refusal arrives."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_DRAIN_BYTES, _DRAIN_S = 64 << 20, 5.0  # of a refused body that is discarded


class Drained(Response):
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
