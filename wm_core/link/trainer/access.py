"""Decides who may ask: a robot with its token, or this machine where there are no tokens.

A peer that shows wrong tokens too often is answered without being waited for; a valid token works
all the same, since another robot may stand behind the same address.  Where there are no tokens, a
browser of this machine is a peer too, and what it shows may be of any site: a page that another
site has sent may not ask.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from wm_core.link.trainer.answers import NOTHING, About, answer
from wm_core.link.trainer.connections import Connection, network_of
from wm_core.link.trainer.limits import RateLimit
from wm_core.link.trainer.tokens import OPERATOR, Tokens

log = logging.getLogger(__name__)

_FAILURES_PER_S, _FAILURES_AT_ONCE = 0.5, 30.0  # of one peer
_FAILED_WAIT_S = 60.0
_MAX_PEERS = 4096  # whose failures are remembered
TOKEN_OF_ROBOT = (
    "this token is of a robot, which sees itself only; "
    "`wm robot add NAME --may-look --tokens FILE` makes one for a person"
)
CERTIFICATE_OF_ROBOT = (
    f"this certificate is of a robot, which sees itself only; one of the name {OPERATOR} may look"
)


class Access:
    """Refuses requests of peers that may not ask, before any of their body is read.

    Args:
        tokens: of the robots; None serves peers on this machine only, or those with certificates.
        certificates: whether peers show certificates, which name the robot that they are.
        host: that the service was told to listen on; peers on this machine may call it so.
    """

    def __init__(
        self, tokens: Tokens | None, *, certificates: bool = False, host: str = "127.0.0.1"
    ) -> None:
        self.tokens, self.certificates, self._host = tokens, certificates, host
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
        if self.tokens is not None:
            found = self.tokens.check(token_in(request), robot)
            if found == "unreadable":
                reason = "the tokens file cannot be read just now, so nobody is let in"
                return answer("busy", reason, about)
            if found == "unknown":
                return self._failed(request.client.host if request.client else "", about)
            if found == "other":
                reason = f"this token may not write as {(robot or '')[:64]!r}"
                return answer("denied", reason, about, status=403)
        elif reason := self._stranger(request):
            return answer("denied", reason, about, status=403)
        if self.certificates and robot is not None:
            names = connection_of(request).names
            if robot not in names:
                reason = f"this certificate is of {sorted(names)[:4]}, not of {robot[:64]!r}"
                return answer("denied", reason, about, status=403)
        connection_of(request).seat.known = True
        return None

    def seen_by(self, request: Request) -> set[str] | None:
        """Name the robots that a peer which may ask may see: its own; None for all of them."""
        if self.tokens is not None:
            return self.tokens.seen_by(token_in(request))
        if not self.certificates:
            return None
        names = connection_of(request).names
        return None if OPERATOR in names else names

    def _stranger(self, request: Request) -> str:
        """Say why a peer may not ask where there are no tokens; empty where it may."""
        if not self.certificates:
            if not is_loopback(request.client.host if request.client else ""):
                return "without a tokens file only this machine is served"
            if not names_this_machine(request, self._host):
                named = request.headers.get("host", "none")[:64]
                return (
                    "without a tokens file, expected 127.0.0.1 or localhost as the address of "
                    f"the service (the header Host), got {named!r}"
                )
        if is_of_other_site(request):
            return "a web page of another site asks; expected a program, or who types the address"
        return ""

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


def token_in(request: Request) -> str | None:
    """Give the token that the header ``Authorization: Bearer`` carries; None without one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def connection_of(request: Request) -> Connection:
    """Give the connection that ``request`` came by."""
    connection: Connection = request.scope["wm_connection"]
    return connection


def names_this_machine(request: Request, host: str = "") -> bool:
    """Tell whether the request's address is one of this machine: another name may be a trick.

    A site whose name is made to lead to this machine would otherwise read what is served to it.

    Args:
        request: whose header ``Host`` is looked at; HTTP/1.0 may lack it, and no browser does.
        host: a further name that this machine's owner gave the service.
    """
    named = request.headers.get("host")
    if named is None:
        return bool(request.scope.get("http_version") == "1.0")
    try:
        name = urlsplit(f"//{named}").hostname or ""
    except ValueError:
        return False
    is_local = name == "localhost" or name.endswith(".localhost") or is_loopback(name)
    return is_local or (name != "" and name == host.lower())


def is_of_other_site(request: Request) -> bool:
    """Tell whether a browser says that a page of another site sends the request."""
    origin = request.headers.get("origin")
    if origin is not None and origin.partition(":")[2] != f"//{request.headers.get('host', '')}":
        return True
    return request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is an address of this machine's loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
