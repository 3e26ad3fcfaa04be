"""No robot takes more of the service than its share, and none starves another."""

from __future__ import annotations

import contextlib
import json
import socket
from urllib.parse import urlsplit

import pytest

from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.limits import Excess, RateLimit, Upload, UploadLimits
from wm_core.link.trainer.settings import ServeSettings
from wm_core.link.trainer.tokens import add_token


class Clock:
    """Seconds that the test sets."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def limits(tmp_path):
    """Limits under a clock of the test's, and a table of what is stored of each robot."""

    def make(**settings):
        clock, stored = Clock(), {}
        made = UploadLimits(
            ServeSettings(root=tmp_path, **settings), lambda robot: stored.get(robot, 0), clock
        )
        return made, clock, stored

    return make


def test_a_rate_lets_a_burst_pass_and_then_its_average():
    rate = RateLimit(2.0, 4.0, 0.0)
    passed = 0
    for tenth in range(100):
        while rate.wait_s(tenth / 10) == 0:
            rate.take(1)
            passed += 1
    assert 22 <= passed <= 24  # 4 at once and 2 a second for 9.9 s
    assert RateLimit(0, 0, 0.0).wait_s(5.0) == 0


def test_a_robot_has_its_own_bound_of_uploads(limits):
    made, _, _ = limits(max_uploads_per_robot=2, max_uploads=3)
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(made.admit("bad"))
        assert made.admit("bad").verdict == "busy"
        stack.enter_context(made.admit("good"))
        assert "uploads at once" in made.admit("third").reason
    assert made.uploads == 0
    assert isinstance(made.admit("bad"), Upload)


def test_memory_is_bounded_by_robot_and_in_all(limits):
    made, _, _ = limits(max_chunk_bytes=100, upload_memory_bytes=800, max_uploads_per_robot=9)
    with contextlib.ExitStack() as stack:
        uploads = [stack.enter_context(made.admit(f"r{n}")) for n in range(9)]
        assert [upload.hold(90) for upload in uploads[:8]] == [None] * 8
        assert "this robot" in uploads[0].hold(20).reason
        assert "all uploads" in uploads[8].hold(90).reason
    assert made.held_bytes == 0


def test_rates_and_quota_are_answered_with_how_long_to_wait(limits):
    made, clock, stored = limits(robot_chunks_per_s=1, robot_quota_bytes=500)
    admitted = [made.admit("rover") for _ in range(4)]
    assert [isinstance(a, Upload) for a in admitted] == [True, True, False, False]
    assert (admitted[2].verdict, admitted[2].retry_s) == ("quota", 1.0)
    assert isinstance(made.admit("other"), Upload)
    clock.now_s += 2
    stored["rover"] = 500
    excess = made.admit("rover")
    assert isinstance(excess, Excess)
    assert "--robot-quota-bytes" in excess.reason
    stored["rover"] = 499
    assert isinstance(made.admit("rover"), Upload)


def test_bytes_above_the_rate_are_paid_for_by_waiting(limits):
    made, clock, _ = limits(robot_bytes_per_s=100)
    with made.admit("rover") as upload:
        upload.hold(1200)
    assert made.admit("rover").retry_s == pytest.approx(10.0, abs=0.1)
    clock.now_s += 10.1
    assert isinstance(made.admit("rover"), Upload)


def test_many_names_of_robots_take_bounded_memory(limits):
    made, _, _ = limits()
    for n in range(10_000):
        made.admit(f"r{n}")
    assert len(made._robots) < 5000


def put(service, key, data, sha256, *, token=None):
    client = TrainerClient(service.url, token=token)
    try:
        path = f"/v1/chunks/{key.robot}/{key.session}/{key.seq}"
        reply = client.request("PUT", path, body=data, headers={"X-Content-SHA256": sha256})
        return reply.status, json.loads(reply.body), reply.retry_after_s
    finally:
        client.close()


def test_eight_slow_bodies_of_one_robot_do_not_disturb_another(
    serve, make_chunk, tmp_path, wait_until
):
    tokens = tmp_path / "tokens"
    bad, good = add_token(tokens, "bad"), add_token(tokens, "good")
    service = serve(tokens=tokens, max_uploads=6)
    key, data, sha256 = make_chunk(robot="bad")
    head = f"PUT /v1/chunks/bad/{key.session}/0 HTTP/1.1\r\nHost: localhost\r\n"
    head += f"Authorization: Bearer {bad}\r\nX-Content-SHA256: {sha256}\r\n"
    head += f"Content-Length: {len(data)}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", urlsplit(service.url).port)
        slow = [
            stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(8)
        ]
        for sock in slow:
            sock.sendall(head.encode() + data[:1])
        wait_until(lambda: service.application.uploads == 4)
        chunks = [make_chunk(robot="good", seq=seq) for seq in range(20)]
        statuses = [put(service, *chunk, token=good)[0] for chunk in chunks]
        assert statuses == [201] * 20
        answers = [sock.recv(1000) for sock in slow[4:]]
        assert all(b" 503 " in answer and b"this robot" in answer for answer in answers)


def test_a_slow_link_passes_and_a_byte_now_and_then_does_not(serve, make_chunk, wait_until):
    service = serve(upload_s=0.5, min_bytes_per_s=1e9)
    key, data, sha256 = make_chunk()
    head = f"PUT /v1/chunks/{key.robot}/{key.session}/0 HTTP/1.1\r\nHost: localhost\r\n"
    head += f"X-Content-SHA256: {sha256}\r\nContent-Length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(service.url).port), timeout=60) as sock:
        sock.sendall(head.encode() + data[:10])
        said = sock.recv(1000)
    assert b" 408 " in said
    assert b'"slow"' in said
    assert service.application.uploads == 0
    assert put(service, key, data, sha256)[0] == 201
    slow = serve(root=service.settings.root / "b", upload_s=30, min_bytes_per_s=1)
    with socket.create_connection(("127.0.0.1", urlsplit(slow.url).port), timeout=60) as sock:
        sock.sendall(head.encode())
        for start in range(0, len(data), 4096):
            sock.sendall(data[start : start + 4096])
        assert b" 201 " in sock.recv(1000)


def test_bad_tokens_too_often_are_cut_short_and_a_good_one_still_works(
    serve, make_chunk, tmp_path, caplog
):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "rover")
    service = serve(tokens=tokens)
    chunk = make_chunk()
    replies = [put(service, *chunk, token="wrong") for _ in range(60)]
    assert {status for status, _, _ in replies} == {401}
    assert replies[-1][2] == 60.0  # asked to stay away
    assert len(caplog.records) < 50  # not a line for each
    assert put(service, *chunk, token=token)[0] == 201


def test_a_quota_of_stored_bytes_is_answered_429(serve, make_chunk):
    service = serve(robot_quota_bytes=1)
    assert put(service, *make_chunk())[0] == 201
    status, said, wait_s = put(service, *make_chunk(seq=1))
    assert (status, said["verdict"], wait_s) == (429, "quota", 60.0)
    assert put(service, *make_chunk(robot="other"))[0] == 201
