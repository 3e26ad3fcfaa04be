"""Requests end in time, go only where they should, and take no more memory than stated."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from wm_core.link.robot import sockets
from wm_core.link.robot.client import (
    FAILURES,
    BandwidthCap,
    Reply,
)

MIB = 1 << 20


def test_a_connection_that_was_closed_meanwhile_is_made_anew(scripted, client):
    """The server closes after each answer without saying so."""

    def once(sock):
        file = sock.makefile("rb")
        while file.readline() not in (b"\r\n", b""):
            pass
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    server = scripted(once)
    robot = client(server.url)
    for _ in range(3):
        assert robot.request("GET", "/").status == 200
    assert server.connections == 3


def test_one_connection_serves_many_requests(answering, client):
    server = answering(lambda request: (200, request.body))
    robot = client(server.url)
    for number in range(5):
        assert robot.request("PUT", "/", body=b"%d" % number).body == b"%d" % number
    assert server.connections == 1


def drip(first, piece):
    """Sends ``first``, then ``piece`` over and over, slowly."""

    def handle(sock):
        sock.recv(65536)
        sock.sendall(first)
        while True:
            sock.sendall(piece)
            time.sleep(0.02)

    return handle


@pytest.mark.parametrize(
    ("first", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"HTTP/1.1 ", b"2"),
    ],
    ids=["headers", "interim answers", "body", "chunked body", "status"],
)
def test_an_answer_that_drips_meets_a_deadline(scripted, client, first, piece):
    server = scripted(drip(first, piece))
    with pytest.raises(FAILURES, match=r"timed out|headers|status|line"):
        client(server.url, read_s=0.3).request("GET", "/")


def test_a_dripping_stream_is_left_though_each_wait_is_short(scripted, client):
    server = scripted(drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"a"))
    robot = client(server.url, read_s=0.3)
    with pytest.raises(FAILURES, match="timed out"), robot.opened("GET", "/") as stream:
        list(iter(lambda: stream.read(1000), b""))


def test_a_peer_that_reads_nothing_meets_the_deadline(silent, client):
    with pytest.raises(FAILURES, match="timed out"):
        client(silent[0], read_s=0.3).request("PUT", "/", body=bytes(32 * MIB))


def test_an_endless_answer_is_cut_at_its_bound(scripted, client):
    def endless(sock):
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            sock.sendall(bytes(65536))

    assert len(client(scripted(endless).url).request("GET", "/").body) == MIB


def test_nothing_is_decompressed(answering, client):
    bomb = gzip.compress(bytes(20 * MIB))
    server = answering(lambda _: (200, bomb, {"Content-Encoding": "gzip"}))
    assert client(server.url).request("GET", "/").body == bomb
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_an_answer_to_half_a_body_is_read(scripted, client):
    """As of a proxy with a limit: it answers, and discards what still comes."""

    def early(sock):
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass

    got = client(scripted(early).url).request("PUT", "/", body=bytes(4 * MIB))
    assert (got.status, got.body) == (413, b"big")


def test_closing_ends_a_wait_for_a_connection_that_nobody_takes(client, wait_until):
    """The queue of connections is full, so that further ones hear nothing."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listening.getsockname())
        url, failed = f"http://127.0.0.1:{listening.getsockname()[1]}", []
        with pytest.raises(FAILURES, match="timed out"):
            client(url, connect_s=0.2).request("GET", "/")
        robot = client(url, connect_s=3600.0)

        def ask():
            try:
                robot.request("PUT", "/", body=b"1")
            except Exception as error:
                failed.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: len(robot._exchange._sockets) == 1)
        robot.abort()
        thread.join(60.0)
        assert not thread.is_alive()
        assert isinstance(failed[0], FAILURES)


def test_closing_ends_a_wait_for_a_name_that_no_server_resolves(client, monkeypatch):
    """The system's lookup cannot be cut short, so it stands still here until the test ends."""
    asked, ended = threading.Event(), threading.Event()
    look_up = socket.getaddrinfo

    def hang(host, *args):
        if host != "slow.invalid":
            return look_up(host, *args)
        if not args[-1] & socket.AI_NUMERICHOST:
            asked.set()
            ended.wait(600.0)
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(sockets.socket, "getaddrinfo", hang)
    failed = []

    def ask(robot):
        try:
            robot.request("GET", "/")
        except FAILURES as error:
            failed.append(str(error))

    try:
        with pytest.raises(FAILURES, match="resolved in time"):
            client("http://slow.invalid", connect_s=0.2).request("GET", "/")
        robot = client("http://slow.invalid", connect_s=3600.0)
        thread = threading.Thread(target=ask, args=(robot,))
        thread.start()
        assert asked.wait(60.0)
        robot.abort()
        thread.join(60.0)
        assert not thread.is_alive()
        assert "closed" in failed[0]
    finally:
        ended.set()


def test_a_name_that_nobody_knows_fails_with_its_name(client):
    with pytest.raises(FAILURES, match="the name nowhere"):
        client("http://nowhere.invalid").request("GET", "/")


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, 0),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "9" * 5000}, 300),
        ({"Retry-After": "-5"}, 0),
        ({"Retry-After": "nan"}, 0),
        ({"Retry-After": "soon"}, 0),
        (
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:40 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            40,
        ),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, 300),
    ],
)
def test_the_wait_that_is_asked_for_is_understood_and_bounded(headers, wait_s):
    assert Reply(503, headers, b"").retry_after_s == wait_s


def test_a_date_in_the_near_future_is_waited_for():
    then = email.utils.formatdate(time.time() + 100, usegmt=True)
    assert 50 < Reply(503, {"Retry-After": then}, b"").retry_after_s <= 100


def test_several_clients_share_one_cap():
    cap = BandwidthCap(1000.0)
    assert cap.wait_s(500, now_s=10.0) == 0.0
    waits = [cap.wait_s(500, now_s=10.0) for _ in range(4)]
    assert waits == pytest.approx([0.5, 1.0, 1.5, 2.0])


def test_the_client_loads_little():
    """Neither a server's libraries nor torch; urllib3 takes no part that it does not need."""
    code = (
        "import sys, json, wm_core.link.robot.uploader, wm_core.link.robot.policy_client;"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    loaded = set(json.loads(done.stdout))
    unwanted = {"torch", "starlette", "uvicorn", "requests", "h2", "cryptography", "OpenSSL"}
    assert loaded & unwanted == set()
