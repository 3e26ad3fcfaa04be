"""Decides who may ask: a robot with its token, or this machine where there are no tokens."""

from __future__ import annotations

import ipaddress

from starlette.requests import Request
from starlette.responses import Response

from wm_core.link.trainer.answers import NOTHING, About, answer
from wm_core.link.trainer.tokens import Tokens


class Access:
    """Refuses requests of peers that may not ask, before any of their body is read.

    Args:
        tokens: of the robots; None serves peers on this machine only.
    """

    def __init__(self, tokens: Tokens | None) -> None:
        self.tokens = tokens

    def refusal(
        self, request: Request, robot: str | None = None, about: About = NOTHING
    ) -> Response | None:
        """Refuse a peer that may not ask, or not write as ``robot``; None where it may.

        Args:
            request: whose headers carry the token.
            robot: name under which the peer wants to write; None where it only reads.
            about: what the request is about, for the answer to repeat.
        """
        if self.tokens is None:
            if request.client and is_loopback(request.client.host):
                return None
            reason = "without a tokens file only this machine is served"
            return answer("denied", reason, about, status=403)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        found = self.tokens.check(token.strip() if scheme.lower() == "bearer" else None, robot)
        if found == "unknown":
            reason = "expected the header `Authorization: Bearer TOKEN` of a robot"
            return answer("denied", reason, about, headers={"WWW-Authenticate": "Bearer"})
        if found == "other":
            reason = f"this token may not write as {(robot or '')[:64]!r}"
            return answer("denied", reason, about, status=403)
        return None


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is an address of this machine's loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
