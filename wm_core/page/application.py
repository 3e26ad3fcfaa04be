"""Answers the routes of the page: the page itself, its news, who may look, and the way back.

Everything lies below ``/ui``.  The page holds no script of its own, and the browser is told to
take none from elsewhere.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from wm_core.contract.errors import WmError
from wm_core.contract.files import json_text
from wm_core.link.trainer.access import TOKEN_OF_ROBOT
from wm_core.page.board import Board, Frame
from wm_core.page.replay_routes import ReplayRoutes
from wm_core.page.skeleton import SKELETON, login_page, refused_page, rollback_form
from wm_core.page.viewers import COOKIE, Viewers

STATIC = Path(__file__).parent / "static"
_TYPES = {"page.js": "text/javascript", "replay.js": "text/javascript", "page.css": "text/css"}
HEARTBEAT_S = 0.8  #: between two words to the browser, which calls two seconds of silence a loss
_MAX_FORM_BYTES = 4096
_MAX_VIEWERS = 64
_COOKIE_S = 30 * 86_400
_PLACE = re.compile(r'<(?P<tag>\w+) id="(?P<id>[\w-]+)"(?P<rest>[^>]*)>')
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageApplication:
    """Answers browsers.

    Args:
        board: what is shown.
        viewers: decides who may look.
        allow_rollback: whether people may bring back the policy before the current one.
        secure: whether browsers come by TLS, so that the cookie goes no other way.
    """

    def __init__(
        self, board: Board, viewers: Viewers, *, allow_rollback: bool = False, secure: bool = False
    ) -> None:
        self.board, self.viewers = board, viewers
        self._allow_rollback, self._secure = allow_rollback, secure
        self._streams = 0
        self._static = {name: (STATIC / name).read_bytes() for name in _TYPES}
        self.routes = [
            Route("/ui", self.entrance),
            Route("/ui/", self.page),
            Route("/ui/events", self.events),
            Route("/ui/login", self.login, methods=["POST"]),
            Route("/ui/logout", self.logout, methods=["POST"]),
            Route("/ui/rollback", self.rollback, methods=["POST"]),
            *ReplayRoutes(board.reader.root, viewers.refusal, self._refused, HEADERS).routes,
            Route("/ui/dream/{name}", self.dream),
            Route("/ui/{name}", self.static),
        ]

    async def entrance(self, request: Request) -> Response:
        """Lead to the page."""
        return RedirectResponse("/ui/", 307, headers=HEADERS)

    async def static(self, request: Request) -> Response:
        """Answer with script or style sheet, which hold nothing that is secret."""
        name = request.path_params["name"]
        if name not in self._static:
            return Response("no such page\n", 404, headers=HEADERS, media_type="text/plain")
        content = self._static[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        headers = {**HEADERS, "Cache-Control": "no-cache", "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=_TYPES[name])

    async def page(self, request: Request) -> Response:
        """Answer with the whole page as it is now, or with the form for a token."""
        why = self.viewers.refusal(request)
        if why:
            return self._refused(request, why)
        frame = await self.board.now()
        more = {"forms": self._forms(request)}
        text = filled(SKELETON, {**frame.html, **more}, frame.pictures)
        return _html(text)

    async def events(self, request: Request) -> Response:
        """Answer with what changes on the page, for as long as the browser listens."""
        why = self.viewers.refusal(request)
        if why:
            return _plain_refusal(why)
        if request.method == "HEAD":  # a browser that asks whether it may look again
            return Response(headers=HEADERS, media_type="text/event-stream")
        if self._streams >= _MAX_VIEWERS:
            reason = f"{_MAX_VIEWERS} pages are open already\n"
            return Response(reason, 503, headers=HEADERS, media_type="text/plain")
        return StreamingResponse(
            self._news(request),
            headers={**HEADERS, "X-Accel-Buffering": "no"},
            media_type="text/event-stream",
        )

    async def _news(self, request: Request) -> AsyncIterator[str]:
        self._streams += 1
        try:
            shown = Frame()
            yield "retry: 500\n\n"
            while not self.board.closing:
                frame = await self.board.after(shown.number, HEARTBEAT_S)
                if self.viewers.refusal(request):  # the token was taken away
                    return
                forms = {"forms": self._forms(request)}
                frame = Frame({**frame.html, **forms}, frame.pictures, frame.number)
                new = frame.since(shown)
                found = {"html": new.html, "pictures": new.pictures}
                yield f"data: {json_text({k: v for k, v in found.items() if v})}\n\n"
                shown = frame
        finally:
            self._streams -= 1

    async def dream(self, request: Request) -> Response:
        """Answer with a film strip of the newest dream, as it was read last."""
        why = self.viewers.refusal(request)
        if why:
            return _plain_refusal(why)
        strip = self.board.reader.pictures.get(request.path_params["name"])
        if strip is None or not strip.value:
            return Response("no such picture\n", 404, headers=HEADERS, media_type="text/plain")
        return Response(strip.value, headers=HEADERS, media_type="image/png")

    def _forms(self, request: Request) -> str:
        """Give the form by which a policy is brought back, where that is allowed."""
        if not self._allow_rollback:
            return ""
        return rollback_form(self.board.run.policies, self.viewers.form_token(request))

    async def login(self, request: Request) -> Response:
        """Take the token of a form and keep it in the browser's cookie."""
        if self.viewers.wait_s(request) > 0:
            return self._refused(request, "too many wrong tokens: wait a minute")
        token = (await _form(request)).get("token", "").strip()
        why = self.viewers.why_not_let_in(request, token)
        if why:
            return self._refused(request, why)
        response = RedirectResponse("/ui/", 303, headers=HEADERS)
        response.set_cookie(
            COOKIE, token, max_age=_COOKIE_S, path="/ui", secure=self._secure,
            httponly=True, samesite="strict",
        )  # fmt: skip
        return response

    async def logout(self, request: Request) -> Response:
        """Let the browser forget the token."""
        response = RedirectResponse("/ui/", 303, headers=HEADERS)
        response.delete_cookie(COOKIE, path="/ui", httponly=True, samesite="strict")
        return response

    async def rollback(self, request: Request) -> Response:
        """Bring back what a channel's robots ran before, if nobody changed it meanwhile."""
        form = await _form(request)
        why = self.viewers.may_change(request, form.get("form", ""))
        if not self._allow_rollback:
            why = "this page changes nothing: it was started without --allow-rollback"
        if why:
            return _html(refused_page(why), 403)
        channels = self.board.reader.policies.channels
        name, expected = form.get("channel", ""), form.get("current", "")

        def change() -> str:
            plan = channels.course(name).plan
            if plan.current is None or plan.current.manifest != expected:
                return "the channel changed meanwhile: load the page again"
            channels.roll_back(name)
            return ""

        try:
            why = await run_in_threadpool(change)
        except (WmError, OSError) as error:
            why = str(error)
        return _html(refused_page(why), 409) if why else RedirectResponse("/ui/", 303, HEADERS)

    def _refused(self, request: Request, why: str) -> Response:
        """Refuse a browser, with the form for a token where one would help."""
        if self.viewers.tokens is None:
            return _html(refused_page(why), 403)
        if why == TOKEN_OF_ROBOT:
            return _html(login_page(why), 403)
        response = _html(login_page(why if request.method == "POST" else ""), 401)
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


def filled(skeleton: str, contents: dict[str, str], pictures: dict[str, str]) -> str:
    """Put contents into the elements of a skeleton, and into the elements that come with them."""

    def put(match: re.Match[str]) -> str:
        name, rest = match["id"], match["rest"]
        if name in pictures:
            return f'<{match["tag"]} id="{name}" src="{html.escape(pictures[name])}"{rest}>'
        inner = contents.get(name)
        return match[0] + (_PLACE.sub(put, inner) if inner is not None else "")

    return _PLACE.sub(put, skeleton)


def _plain_refusal(why: str) -> Response:
    """Refuse what is no page, with the reason as it is."""
    status = 403 if why == TOKEN_OF_ROBOT else 401
    return Response(f"{why}\n", status, headers=HEADERS, media_type="text/plain")


async def _form(request: Request) -> dict[str, str]:
    """Read a small form; empty where it is none, or too large."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > _MAX_FORM_BYTES:
            return {}
    try:
        return {k: v[-1] for k, v in parse_qs(content.decode(), max_num_fields=16).items()}
    except ValueError:
        return {}


def _html(text: str, status: int = 200) -> Response:
    return Response(text, status, headers=HEADERS, media_type="text/html")
