"""Without tokens, what a browser of this machine sends for another site is refused."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.tokens import add_token

ROUTES = ("/v1/live", "/v1/status", "/metrics", "/v1/policies/main", f"/v1/blobs/{'0' * 64}")


@pytest.fixture
def ask():
    """Sends a head as it stands, and gives back (status, what was answered)."""

    def send(service, line, *headers, body=b""):
        with socket.create_connection(
            ("127.0.0.1", urlsplit(service.url).port), timeout=60
        ) as sock:
            head = "\r\n".join([line, *headers, "Connection: close", "", ""])
            sock.sendall(head.encode() + body)
            said = b""
            while piece := sock.recv(1 << 16):
                said += piece
        head, _, body = said.partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    return send


@pytest.mark.parametrize("route", ROUTES)
def test_without_tokens_only_names_of_this_machine_are_answered(serve, ask, route):
    service = serve()
    for host in ("evil.example", "evil.example:8765", "localhost.evil.example", "[", "10.0.0.1"):
        status, said = ask(service, f"GET {route} HTTP/1.1", f"Host: {host}")
        assert (status, json.loads(said)["verdict"]) == (403, "denied"), host
        assert "expected 127.0.0.1 or localhost" in said
    for host in ("localhost", "LOCALHOST:8765", "127.0.0.1:1", "127.3.2.1", "[::1]:8765"):
        assert ask(service, f"GET {route} HTTP/1.1", f"Host: {host}")[0] != 403, host
    assert ask(service, f"GET {route} HTTP/1.1")[0] == 403
    assert ask(service, f"GET {route} HTTP/1.0")[0] != 403  # which may lack it; no browser does


OTHER_SITES = [
    "Origin: http://evil.example",
    "Origin: http://localhost:3000",
    "Origin: null",
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
]


@pytest.mark.parametrize("header", OTHER_SITES)
def test_without_tokens_a_page_of_another_site_is_refused(serve, ask, header):
    service = serve()
    report = b'{"t_ns": 1}'
    length = f"Content-Length: {len(report)}"
    for line in (*(f"GET {route} HTTP/1.1" for route in ROUTES), "POST /v1/live/x HTTP/1.1"):
        status, said = ask(service, line, "Host: localhost:8765", header)
        assert (status, json.loads(said)["verdict"]) == (403, "denied"), line
        assert "another site" in said
    line = "POST /v1/live/x HTTP/1.1"
    refused = ask(service, line, "Host: localhost", header, length, body=report)
    assert refused[0] == 403
    assert service.application.live_routes.board.taken == 0


def test_the_service_itself_and_an_address_that_is_typed_are_answered(serve, ask):
    service = serve()
    for header in (
        "Origin: http://localhost:8765",
        "Sec-Fetch-Site: same-origin",
        "Sec-Fetch-Site: none",
    ):
        status, _ = ask(service, "GET /v1/live HTTP/1.1", "Host: localhost:8765", header)
        assert status == 200, header


def test_the_name_that_the_owner_has_given_it_is_its_own(serve, closing):
    """As `wm serve --host 0.0.0.0 --insecure` writes it into service.json."""
    service = serve(host="0.0.0.0", insecure=True)
    assert service.url.startswith("http://0.0.0.0:")
    client = closing(TrainerClient(service.url))
    assert client.request("GET", "/v1/live").status == 200


def test_with_tokens_the_name_is_free_and_other_sites_have_no_token(serve, ask, tmp_path):
    token = add_token(tmp_path / "tokens", "rover")
    service = serve(tokens=tmp_path / "tokens")
    bearer = f"Authorization: Bearer {token}"
    assert ask(service, "GET /v1/live HTTP/1.1", "Host: trainer.example", bearer)[0] == 200
    assert ask(service, "GET /v1/live HTTP/1.1", "Host: trainer.example")[0] == 401
