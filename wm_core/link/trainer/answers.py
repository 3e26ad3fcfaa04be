"""Answers of the service: one JSON object with a verdict, which a header repeats.

A robot acts only on what names a known verdict together with its own chunk; the page of a proxy
in between does neither.  ``docs/http.md`` lists the verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from wm_core.contract.files import json_text

VERDICT_HEADER = "WM-Verdict"

#: HTTP status of each verdict
STATUS = {
    "stored": 201,
    "known": 200,
    "damaged": 400,
    "denied": 401,
    "slow": 408,
    "conflict": 409,
    "too_large": 413,
    "version": 415,
    "quota": 429,
    "failed": 500,
    "busy": 503,
    "draining": 503,
    "no_room": 507,
}
#: seconds after which a robot may ask again
RETRY_S = {"quota": 5, "busy": 1, "draining": 5, "no_room": 10}
_MAX_REASON = 2000  # characters


class About(NamedTuple):
    """Names what a request was about, for the answer to repeat."""

    chunk: str = ""  #: ``robot/session/seq``; empty where the request named no chunk
    sha256: str = ""  #: hash that the request announced; empty where it announced none


NOTHING = About()


def answer(
    verdict: str,
    reason: str = "",
    about: About = NOTHING,
    *,
    status: int | None = None,
    retry_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Make an answer of this protocol.

    Args:
        verdict: what became of the request.
        reason: why, in words that help its sender; cut after 2,000 characters.
        about: what the request was about.
        status: of HTTP; None for the one that belongs to ``verdict``.
        retry_s: seconds until it makes sense to ask again; None for the verdict's own.
        headers: further headers.
    """
    said = {"verdict": verdict, "reason": reason[:_MAX_REASON]}
    said.update({name: value for name, value in about._asdict().items() if value})
    sent = {VERDICT_HEADER: verdict, **(headers or {})}
    wait_s = RETRY_S.get(verdict) if retry_s is None else retry_s
    if wait_s is not None:
        sent["Retry-After"] = str(max(1, round(wait_s)))
    content = json_text(said).encode()
    code = STATUS[verdict] if status is None else status
    return Response(content, code, headers=sent, media_type="application/json")


def raw_answer(status: int, verdict: str, reason: str) -> bytes:
    """Make the bytes of an answer after which the connection is closed."""
    made = answer(verdict, reason, status=status, headers={"Connection": "close"})
    head = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}".encode()]
    head += [name + b": " + value for name, value in made.raw_headers]
    return b"\r\n".join([*head, b"", bytes(made.body)])


def is_sha256(text: str) -> bool:
    """Tell whether ``text`` is a hash as this protocol writes it: 64 hexadecimal digits."""
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)


async def not_found(request: Request, error: Exception) -> Response:
    """Answer a path that this service does not have."""
    return answer("no_route", "no such path; docs/http.md lists them", status=404)


async def wrong_method(request: Request, error: Exception) -> Response:
    """Answer a method that a path does not have."""
    return answer("no_route", f"no method {request.method[:16]} here", status=405)
