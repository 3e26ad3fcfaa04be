"""What a robot can tell the trainer's own answers by, early refusals included."""

from __future__ import annotations

import json
import socket
from urllib.parse import quote, urlsplit

import pytest

from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.answers import RETRY_S, STATUS, About, answer
from wm_core.link.trainer.tokens import add_token


@pytest.fixture
def send(closing):
    """Sends a request and gives back (status, header WM-Verdict, what was said)."""

    def ask(service, method, path, *, body=None, token=None, sha256=None):
        client = closing(TrainerClient(service.url, token=token))
        headers = {"X-Content-SHA256": sha256} if sha256 else {}
        reply = client.request(method, path, body=body, headers=headers)
        return reply.status, reply.headers.get("WM-Verdict"), json.loads(reply.body)

    return ask


def test_early_refusals_carry_verdict_hash_and_chunk(serve, send, make_chunk, tmp_path):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "rover")
    service = serve(tokens=tokens, max_chunk_bytes=50_000)
    key, data, sha256 = make_chunk()
    path = f"/v1/chunks/rover/{key.session}/0"
    name = f"rover/{key.session}/0"
    large = bytes(60_000)
    cases = [
        ({"token": None}, 401, "denied"),
        ({"token": "wrong"}, 401, "denied"),
        ({"body": large}, 413, "too_large"),
        ({"body": data[:-1]}, 400, "damaged"),
        ({}, 201, "stored"),
        ({}, 200, "known"),
    ]
    for change, status, verdict in cases:
        sent = {"body": data, "token": token, "sha256": sha256, **change}
        got = send(service, "PUT", path, **sent)
        assert got[:2] == (status, verdict), got
        assert (got[2]["verdict"], got[2]["chunk"]) == (verdict, name)
        assert got[2]["sha256"] == sha256


@pytest.mark.parametrize("seq", ["9" * 4301, "-1", "1e9", "0x10", "\u0661", "100000000"])
def test_an_absurd_sequence_number_is_refused_in_one_short_answer(serve, send, caplog, seq):
    service = serve()
    path = f"/v1/chunks/rover/{'e' * 32}/{quote(seq)}"
    status, verdict, said = send(service, "PUT", path, body=b"x", sha256="0" * 64)
    assert (status, verdict) == (400, "damaged")
    assert len(json.dumps(said)) < 1000
    assert not caplog.records


def test_unknown_paths_and_methods_get_an_answer_of_this_protocol(serve, send):
    service = serve()
    for method, path, status in (
        ("GET", "/v1/chunks", 404),
        ("GET", f"/v1/chunks/rover/{'e' * 32}/0", 405),
        ("PUT", f"/v1/chunks/rover/..%2F..%2Fx/{'e' * 32}/0", 404),
        ("POST", "/v1/health", 405),
    ):
        got = send(service, method, path)
        assert got[:2] == (status, "no_route"), (method, path, got)


def test_answers_leave_without_waiting_for_the_peer(serve):
    """Nagle's algorithm is off on the connections that the service accepts."""
    service = serve()
    with socket.create_connection(("127.0.0.1", urlsplit(service.url).port)) as sock:
        sock.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        (connection,) = service._server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_every_answer_that_asks_to_wait_says_how_long():
    for verdict in STATUS:
        made = answer(verdict, "x" * 100_000, About("rover/s/0"))
        assert made.headers["WM-Verdict"] == verdict
        assert ("retry-after" in made.headers) == (verdict in RETRY_S)
        assert len(made.body) < 3000
