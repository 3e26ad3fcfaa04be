"""Decides who may look at the page: this machine, or whoever shows a token.

A browser shows the token once in a form and keeps it in a cookie that no script can read and that
no other site's request carries.  The cookie is the token itself, so that a restart of the page
asks nobody anew and a token that is taken away ends the look at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from urllib.parse import urlsplit

from starlette.requests import Request

from wm_core.link.trainer.access import is_loopback
from wm_core.link.trainer.connections import network_of
from wm_core.link.trainer.limits import RateLimit
from wm_core.link.trainer.tokens import Tokens

COOKIE = "wm_page"
OPERATOR = "operator"  #: whose token may change what robots run
_TRIES_PER_S, _TRIES_AT_ONCE, _MAX_PEERS = 0.5, 20.0, 4096


class Viewers:
    """Checks who looks.

    Args:
        tokens: of those who may look; None lets this machine look, and nobody else.
        certificates: whether peers have shown certificates, and may look for that.
    """

    def __init__(self, tokens: Tokens | None, *, certificates: bool = False) -> None:
        self.tokens, self._certificates = tokens, certificates
        self._secret = secrets.token_bytes(32)
        self._failures: dict[str, RateLimit] = {}

    def refusal(self, request: Request) -> str:
        """Say why this peer may not look; empty where it may."""
        if self.tokens is not None:
            token = _token_in(request)
            if token and self._knows(request, token):
                _seated(request)
                return ""
            return "expected a token that is in the tokens file"
        host = request.client.host if request.client else ""
        if not self._certificates and not is_loopback(host):
            return "without a tokens file only this machine may look"
        if not self._certificates and not _names_this_machine(request):
            return "expected an address of this machine, such as 127.0.0.1, in the browser"
        _seated(request)
        return ""

    def may_change(self, request: Request, form_token: str) -> str:
        """Say why this peer may not change anything; empty where it may.

        Args:
            request: a form that was sent.
            form_token: that stood in the form.
        """
        why = self.refusal(request)
        if why:
            return why
        if not _same_origin(request):
            return "expected a form of this page, this one came from another site"
        if not hmac.compare_digest(self.form_token(request).encode(), form_token.encode()):
            return "expected a form of this page: load the page again"
        if self.tokens is not None and self.tokens.check(_token_in(request), OPERATOR) != "ok":
            return f"only the token of {OPERATOR} may change what robots run"
        return ""

    def form_token(self, request: Request) -> str:
        """Give what a form of this viewer must hold; another site cannot know it."""
        who = _token_in(request) or ""
        return hmac.new(self._secret, who.encode(), hashlib.sha256).hexdigest()

    def accepts(self, request: Request, token: str) -> bool:
        """Tell whether ``token``, that was put into the form, lets its sender look."""
        return self.tokens is not None and _same_origin(request) and self._knows(request, token)

    def _knows(self, request: Request, token: str) -> bool:
        """Check a token; a peer that guesses is soon refused without a look."""
        assert self.tokens is not None
        now_s, peer = time.monotonic(), network_of(request.client.host if request.client else "")
        if self.tokens.check(token, None) == "ok":
            return True
        if len(self._failures) >= _MAX_PEERS:
            self._failures.clear()
        limit = RateLimit(_TRIES_PER_S, _TRIES_AT_ONCE, now_s)
        self._failures.setdefault(peer, limit).take(1)
        return False

    def wait_s(self, request: Request) -> float:
        """Seconds that a peer which showed wrong tokens must wait for its next try."""
        peer = network_of(request.client.host if request.client else "")
        limit = self._failures.get(peer)
        return 0.0 if limit is None else limit.wait_s(time.monotonic())


def _token_in(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return request.cookies.get(COOKIE)


def _seated(request: Request) -> None:
    """Tell the service's door that this connection is of somebody who may ask."""
    connection = request.scope.get("wm_connection")
    if connection is not None:
        connection.seat.known = True


def _names_this_machine(request: Request) -> bool:
    """Whether the browser's address is one of this machine: another name may be a trick.

    A site whose name is made to lead to this machine would otherwise read the page.
    """
    name = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)


def _same_origin(request: Request) -> bool:
    """Whether the browser says that the form was part of this page."""
    origin = request.headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc == request.headers.get("host", "")
    return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
