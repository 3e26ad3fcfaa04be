"""What an operator sees of the service, and how it ends."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest

from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.metrics import MAX_ROBOTS, OTHERS, Metrics
from wm_core.link.trainer.settings import SERVICE_FILE
from wm_core.link.trainer.tokens import add_token


@pytest.fixture
def get():
    """GETs a path and gives back (status, body)."""

    def ask(service, path, *, token=None):
        client = TrainerClient(service.url, token=token)
        try:
            reply = client.request("GET", path)
            return reply.status, reply.body.decode()
        finally:
            client.close()

    return ask


def put(service, key, data, sha256, *, token=None):
    client = TrainerClient(service.url, token=token)
    try:
        path = f"/v1/chunks/{key.robot}/{key.session}/{key.seq}"
        return client.request("PUT", path, body=data, headers={"X-Content-SHA256": sha256}).status
    finally:
        client.close()


def value(text, name):
    """The value of one line of Prometheus's text."""
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])


def test_metrics_count_chunks_by_robot_and_verdict_and_the_state_of_the_store(
    serve, get, make_chunk
):
    service = serve()
    chunk = make_chunk()
    assert [put(service, *chunk), put(service, *chunk)] == [201, 200]
    put(service, chunk[0], chunk[1][:-1], chunk[2])
    put(service, chunk[0], chunk[1], "no hash")
    status, text = get(service, "/metrics")
    assert status == 200
    for name, expected in {
        'wm_chunks_total{robot="rover",verdict="stored"}': 1,
        'wm_chunks_total{robot="rover",verdict="known"}': 1,
        'wm_chunks_total{robot="rover",verdict="damaged"}': 1,
        'wm_refused_total{verdict="damaged"}': 1,
        'wm_chunk_bytes_total{robot="rover"}': 2 * len(chunk[1]),
        "wm_acknowledgement_seconds_count": 2,
        "wm_stored_chunks": 1,
        "wm_stored_steps": 3,
        "wm_quarantined_chunks": 1,
        "wm_ready": 1,
        "wm_connections ": 1,
        "wm_uploads": 0,
        "wm_upload_bytes": 0,
    }.items():
        assert value(text, name) == expected, name
    assert value(text, 'wm_last_arrival_timestamp_seconds{robot="rover"}') > 1e9
    assert value(text, "wm_committed_chunks_total") >= value(text, "wm_commits_total") >= 1
    assert value(text, "process_open_fds") > 0


def test_metrics_and_status_are_for_those_with_a_token_and_health_for_anyone(serve, get, tmp_path):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "prometheus")
    service = serve(tokens=tokens)
    for path in ("/metrics", "/v1/status"):
        assert get(service, path)[0] == 401
        assert get(service, path, token=token)[0] == 200
    assert get(service, "/v1/health") == (200, '{"ok":true}')
    assert get(service, "/healthz")[0] == 200


def test_many_robots_take_a_bounded_number_of_labels():
    metrics = Metrics(dict)
    for n in range(MAX_ROBOTS + 50):
        metrics.answered(f"r{n}", "stored", 1, 0.01)
    text = metrics.text().decode()
    assert text.count("wm_last_arrival_timestamp_seconds{") == MAX_ROBOTS + 1
    assert value(text, f'wm_chunks_total{{robot="{OTHERS}"') == 50


def test_readiness_names_what_is_wrong(serve, get, tmp_path):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "rover")
    service = serve(tokens=tokens)
    assert json.loads(get(service, "/healthz", token=token)[1]) == {"ready": True, "reasons": []}
    tokens.unlink()
    status, said = get(service, "/healthz")
    assert status == 503
    assert "tokens file" in said
    full = serve(root=tmp_path / "full", min_free_bytes=1 << 60)
    status, said = get(full, "/healthz")
    assert status == 503
    assert "must stay" in said


def head_of(key, data, sha256):
    head = f"PUT /v1/chunks/{key.robot}/{key.session}/{key.seq} HTTP/1.1\r\nHost: localhost\r\n"
    head += f"X-Content-SHA256: {sha256}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode()


def test_a_service_that_ends_finishes_uploads_and_sends_slow_ones_away(
    serve, make_chunk, wait_until
):
    service = serve(drain_s=1.0)
    quick, slow = make_chunk(robot="quick"), make_chunk(robot="slow")
    address = ("127.0.0.1", urlsplit(service.url).port)
    with contextlib.ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(2)
        ]
        for sock, chunk in zip(socks, (quick, slow), strict=True):
            sock.sendall(head_of(*chunk) + chunk[1][:100])
        wait_until(lambda: service.application.uploads == 2)
        ending = threading.Thread(target=service.close)
        ending.start()
        wait_until(lambda: service.application.chunk_routes.closing)
        socks[0].sendall(quick[1][100:])
        assert b" 201 " in socks[0].recv(1000)
        said = socks[1].recv(1000)
        assert b" 503 " in said
        assert b'"draining"' in said
        ending.join(60)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(address, timeout=60)


def test_wm_serve_ends_on_sigterm_whoever_hangs_on(tmp_path, wait_until, make_chunk):
    root = tmp_path / "run"
    words = [sys.executable, "-m", "wm_core.cli.main", "serve", "--root", root, "--port", "0"]
    process = subprocess.Popen([*map(str, words), "--drain-s", "0.5"], stdout=subprocess.DEVNULL)
    try:
        wait_until((root / SERVICE_FILE).exists)
        port = urlsplit(json.loads((root / SERVICE_FILE).read_text())["url"]).port
        chunk = make_chunk()
        with contextlib.ExitStack() as stack:
            for said in (b"", b"GET /v1/po", head_of(*chunk) + b"x"):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                sock.sendall(said)
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
    finally:
        process.kill()
        process.wait()
