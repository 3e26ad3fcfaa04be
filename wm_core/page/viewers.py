"""Decides who may look at the page: this machine, or who shows a token that may look.

A browser shows the token once in a form and keeps it in a cookie that no script can read and that
no other site's request carries.  The cookie is the token itself, so that a restart of the page
asks nobody anew and a token that is taken away ends the look at once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from starlette.requests import Request

from wm_core.link.trainer.access import (
    CERTIFICATE_OF_ROBOT,
    TOKEN_OF_ROBOT,
    connection_of,
    is_loopback,
    is_of_other_site,
    names_this_machine,
    token_in,
)
from wm_core.link.trainer.connections import network_of
from wm_core.link.trainer.limits import RateLimit
from wm_core.link.trainer.tokens import OPERATOR, Tokens

COOKIE = "wm_page"
_TRIES_PER_S, _TRIES_AT_ONCE, _MAX_PEERS = 0.5, 20.0, 4096
_OTHER_SITE = "expected a form of this page, this one came from another site"


class Viewers:
    """Checks who looks.

    Args:
        tokens: of robots and of those who may look; None lets this machine look, and nobody else.
        certificates: whether peers have shown certificates; that of the operator may look.
    """

    def __init__(self, tokens: Tokens | None, *, certificates: bool = False) -> None:
        self.tokens, self._certificates = tokens, certificates
        self._secret = secrets.token_bytes(32)
        self._failures: dict[str, RateLimit] = {}

    def refusal(self, request: Request) -> str:
        """Say why this peer may not look; empty where it may."""
        if self.tokens is not None:
            token = _token_in(request)
            why = self._why_not(request, token) if token else "expected a token that may look"
        elif self._certificates:
            seen_all = OPERATOR in connection_of(request).names
            why = "" if seen_all else CERTIFICATE_OF_ROBOT
        elif not is_loopback(request.client.host if request.client else ""):
            why = "without a tokens file only this machine may look"
        elif not names_this_machine(request):
            why = "expected an address of this machine, such as 127.0.0.1, in the browser"
        else:
            why = ""
        if not why:
            _seated(request)
        return why

    def may_change(self, request: Request, form_token: str) -> str:
        """Say why this peer may not change anything; empty where it may.

        Args:
            request: a form that was sent.
            form_token: that stood in the form.
        """
        why = self.refusal(request)
        if why:
            return why
        if is_of_other_site(request):
            return _OTHER_SITE
        if not hmac.compare_digest(self.form_token(request).encode(), form_token.encode()):
            return "expected a form of this page: load the page again"
        if self.tokens is not None and self.tokens.check(_token_in(request), OPERATOR) != "ok":
            return f"only the token of {OPERATOR} may change what robots run"
        return ""

    def form_token(self, request: Request) -> str:
        """Give what a form of this viewer must hold; another site cannot know it."""
        who = _token_in(request) or ""
        return hmac.new(self._secret, who.encode(), hashlib.sha256).hexdigest()

    def why_not_let_in(self, request: Request, token: str) -> str:
        """Say why ``token``, that was put into the form, lets nobody look; empty where it does."""
        if self.tokens is None:
            return "this page has no tokens file"
        if is_of_other_site(request):
            return _OTHER_SITE
        return self._why_not(request, token)

    def _why_not(self, request: Request, token: str) -> str:
        """Check a token; a peer that guesses is soon refused without a look."""
        assert self.tokens is not None
        now_s, peer = time.monotonic(), network_of(request.client.host if request.client else "")
        if self.tokens.check(token, None) == "ok":
            return "" if self.tokens.seen_by(token) is None else TOKEN_OF_ROBOT
        if len(self._failures) >= _MAX_PEERS:
            self._failures.clear()
        limit = RateLimit(_TRIES_PER_S, _TRIES_AT_ONCE, now_s)
        self._failures.setdefault(peer, limit).take(1)
        return "this token is not in the tokens file"

    def wait_s(self, request: Request) -> float:
        """Seconds that a peer which showed wrong tokens must wait for its next try."""
        peer = network_of(request.client.host if request.client else "")
        limit = self._failures.get(peer)
        return 0.0 if limit is None else limit.wait_s(time.monotonic())


def _token_in(request: Request) -> str | None:
    token = token_in(request)
    return request.cookies.get(COOKIE) if token is None else token


def _seated(request: Request) -> None:
    """Tell the service's door that this connection is of somebody who may ask."""
    connection = request.scope.get("wm_connection")
    if connection is not None:
        connection.seat.known = True
