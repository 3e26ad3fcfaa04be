"""Decides who may ask: a robot with its token, or this machine where there are no tokens.

A peer that shows wrong tokens too often is answered without being waited for; a valid token works
all the same, since another robot may stand behind the same address.
"""

from __future__ import annotations

import ipaddress
import logging
import time

from starlette.requests import Request
from starlette.responses import Response

from wm_core.link.trainer.answers import NOTHING, About, answer
from wm_core.link.trainer.connections import Connection, network_of
from wm_core.link.trainer.limits import RateLimit
from wm_core.link.trainer.tokens import Tokens

log = logging.getLogger(__name__)

_FAILURES_PER_S, _FAILURES_AT_ONCE = 0.5, 30.0  # of one peer
_FAILED_WAIT_S = 60.0
_MAX_PEERS = 4096  # whose failures are remembered


class Access:
    """Refuses requests of peers that may not ask, before any of their body is read.

    Args:
        tokens: of the robots; None serves peers on this machine only, or those with certificates.
        certificates: whether peers show certificates, which name the robot that they are.
    """

    def __init__(self, tokens: Tokens | None, *, certificates: bool = False) -> None:
        self.tokens, self.certificates = tokens, certificates
        self._failures: dict[str, RateLimit] = {}

    def refusal(
        self, request: Request, robot: str | None = None, about: About = NOTHING
    ) -> Response | None:
        """Refuse a peer that may not ask, or not write as ``robot``; None where it may.

        Args:
            request: whose headers carry the token.
            robot: name under which the peer wants to write; None where it only reads.
            about: what the request is about, for the answer to repeat.
        """
        host = request.client.host if request.client else ""
        if self.tokens is not None:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            found = self.tokens.check(token.strip() if scheme.lower() == "bearer" else None, robot)
            if found == "unreadable":
                reason = "the tokens file cannot be read just now, so nobody is let in"
                return answer("busy", reason, about)
            if found == "unknown":
                return self._failed(host, about)
            if found == "other":
                reason = f"this token may not write as {(robot or '')[:64]!r}"
                return answer("denied", reason, about, status=403)
        elif not self.certificates and not is_loopback(host):
            reason = "without a tokens file only this machine is served"
            return answer("denied", reason, about, status=403)
        if self.certificates and robot is not None:
            names = connection_of(request).names
            if robot not in names:
                reason = f"this certificate is of {sorted(names)[:4]}, not of {robot[:64]!r}"
                return answer("denied", reason, about, status=403)
        connection_of(request).seat.known = True
        return None

    def _failed(self, host: str, about: About) -> Response:
        """Refuse a peer without a valid token; at once and for good where it is one too many."""
        now_s, peer = time.monotonic(), network_of(host)
        if len(self._failures) >= _MAX_PEERS:
            self._failures.clear()
        rate = self._failures.setdefault(
            peer, RateLimit(_FAILURES_PER_S, _FAILURES_AT_ONCE, now_s)
        )
        headers = {"WWW-Authenticate": "Bearer"}
        reason = "expected the header `Authorization: Bearer TOKEN` of a robot"
        if rate.wait_s(now_s) > 0:
            headers["Connection"] = "close"
            return answer("denied", reason, about, headers=headers, retry_s=_FAILED_WAIT_S)
        rate.take(1)
        log.warning("%s showed no valid token; it asked about %s", host, about.chunk or "nothing")
        return answer("denied", reason, about, headers=headers)


def connection_of(request: Request) -> Connection:
    """Give the connection that ``request`` came by."""
    connection: Connection = request.scope["wm_connection"]
    return connection


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is an address of this machine's loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
