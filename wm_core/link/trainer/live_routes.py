"""Hears how robots are doing, and tells whoever watches: the newest report of each, in memory."""

from __future__ import annotations

import asyncio
import re

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from wm_core.contract.live import MAX_REPORT_BYTES, LiveReport
from wm_core.link.trainer.access import CERTIFICATE_OF_ROBOT, TOKEN_OF_ROBOT, Access
from wm_core.link.trainer.answers import answer
from wm_core.link.trainer.drained import Drained
from wm_core.link.trainer.limits import Excess, RateLimit
from wm_core.link.trainer.live_board import MAX_ROBOTS, LiveBoard

_ROBOT = re.compile(r"[a-z0-9_-]{1,64}")
_BODY_S = 5.0  #: within which a report has to come
_HELD_BYTES = 16 << 20  #: of all reports that are coming
_LOOKS_PER_S = 200.0


class LiveRoutes:
    """Answers ``POST /v1/live/{robot}`` and ``GET /v1/live``.

    Args:
        access: decides who may say and who may look.
        board: keeps what robots said.
    """

    def __init__(self, access: Access, board: LiveBoard | None = None) -> None:
        self._access, self.board = access, board or LiveBoard()
        self._held_bytes = 0  # of reports that are coming
        self._looks = RateLimit(_LOOKS_PER_S, _LOOKS_PER_S, self.board.clock())
        self.routes = [
            Route("/v1/live/{robot}", self.hear, methods=["POST"]),
            Route("/v1/live", self.tell),
        ]

    async def hear(self, request: Request) -> Response:
        """Keep a robot's report, and answer whether somebody watches the robot."""
        robot = request.path_params["robot"]
        refusal = self._access.refusal(request, robot)
        if refusal is None:
            refusal = self._refusal(request, robot)
        if refusal is not None:
            self.board.refused += 1
            return refusal if "connection" in refusal.headers else Drained(refusal, request)
        data = await self._body(request)
        if isinstance(data, Excess):
            return Drained(self._not_kept(data), request)
        try:
            kept = self.board.put(robot, LiveReport.parse(data))
        except ValueError as error:
            kept = Excess("damaged", f"expected a live report (docs/http.md): {error}")
        if isinstance(kept, Excess):
            return self._not_kept(kept)
        return JSONResponse({"watched": kept, "every_s": self.board.every_s})

    async def tell(self, request: Request) -> Response:
        """Answer ``GET /v1/live``: what was heard of each robot, or of those of ``?robot=``.

        A robot is told of itself only: the pictures of the others are for people.
        """
        refusal = self._access.refusal(request)
        if refusal:
            return refusal
        asked = request.query_params.getlist("robot")
        if len(asked) > MAX_ROBOTS or not all(_ROBOT.fullmatch(name) for name in asked):
            return answer("bad_request", "expected robot=NAME, of a-z 0-9 _ -", status=400)
        seen = self._access.seen_by(request)
        if seen is not None and not seen.issuperset(asked):
            why = TOKEN_OF_ROBOT if self._access.tokens else CERTIFICATE_OF_ROBOT
            return answer("denied", why, status=403)
        robots = asked or seen
        wait_s = self._looks.wait_s(self.board.clock())
        if wait_s > 0:
            reason = f"more than {_LOOKS_PER_S:g} looks a second"
            return answer("quota", reason, retry_s=wait_s)
        self._looks.take(1)
        headers = {"Cache-Control": "no-store"}
        return Response(self.board.read(robots), headers=headers, media_type="application/json")

    def _refusal(self, request: Request, robot: str) -> Response | None:
        """Refuse by what the head of the request says; None where the body may come."""
        if not _ROBOT.fullmatch(robot):
            return answer("damaged", "expected a robot's name of 1 to 64 of a-z 0-9 _ -")
        excess = self.board.admit(robot)
        if excess is not None:
            return answer(excess.verdict, excess.reason, retry_s=excess.retry_s)
        announced = request.headers.get("content-length", "0")
        if len(announced) > 18 or (announced.isdecimal() and int(announced) > MAX_REPORT_BYTES):
            return answer("too_large", _too_large(announced[:20]))
        return None

    async def _body(self, request: Request) -> bytes | Excess:
        """Receive a report within its deadline and bounds."""
        held = _Held(self)
        try:
            return await asyncio.wait_for(held.body(request), _BODY_S)
        except (ClientDisconnect, asyncio.TimeoutError):
            return Excess("slow", f"the report did not come within {_BODY_S:g} s")
        finally:
            self._held_bytes -= held.bytes

    def _not_kept(self, excess: Excess) -> Response:
        self.board.refused += 1
        return answer(excess.verdict, excess.reason, retry_s=excess.retry_s)

    def hold(self, size: int) -> bool:
        """Count bytes of reports that are coming; False where they are too many."""
        self._held_bytes += size
        return self._held_bytes <= _HELD_BYTES


class _Held:
    """Receives one body and counts what it holds meanwhile."""

    def __init__(self, routes: LiveRoutes) -> None:
        self._routes, self.bytes = routes, 0

    async def body(self, request: Request) -> bytes | Excess:
        pieces = []
        async for piece in request.stream():
            pieces.append(piece)
            self.bytes += len(piece)
            if not self._routes.hold(len(piece)):
                return Excess("busy", "too many live reports come at once")
            if self.bytes > MAX_REPORT_BYTES:
                return Excess("too_large", _too_large("more"))
        return b"".join(pieces)


def _too_large(size: str) -> str:
    return f"expected at most {MAX_REPORT_BYTES} bytes of a live report, {size} came"
