"""What a peer costs before it is known who it is, and how long it may take."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from urllib.parse import urlsplit

import pytest

from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer import connections
from wm_core.link.trainer.connections import Seats, most_connections, network_of
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.settings import ServeSettings


@pytest.fixture
def connect():
    """Opens raw connections to a service; they are closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def to(service, data=b""):
            address = ("127.0.0.1", urlsplit(service.url).port)
            sock = stack.enter_context(socket.create_connection(address, timeout=60.0))
            sock.sendall(data)
            return sock

        yield to


def rest_of(sock):
    """Everything that comes until the service closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(65536):
            data += piece
    return data


def drip(sock, piece):
    """Sends a piece now and then, for half a minute."""
    for _ in range(600):
        sock.sendall(piece)
        time.sleep(0.05)


def health(service):
    client = TrainerClient(service.url)
    try:
        return client.request("GET", "/v1/health").status
    finally:
        client.close()


@pytest.mark.parametrize(
    "said", [b"", b"GET /v1/he", b"\r\n", b"GET / HTTP/1.1\r\nHost: localhost\r\nA:"]
)
def test_a_peer_that_does_not_finish_its_headers_is_closed(serve, connect, said):
    service = serve(header_s=0.2)
    assert b" 200 " not in rest_of(connect(service, said))
    assert health(service) == 200


def test_a_peer_that_drips_bytes_does_not_move_its_deadline(serve, connect):
    service = serve(header_s=0.5)
    sock = connect(service, b"GET / HTTP/1.1\r\n")
    with pytest.raises(ConnectionError):
        drip(sock, b"a: b\r\n")


def test_an_idle_connection_is_closed_and_blank_lines_do_not_keep_it(serve, connect):
    service = serve(idle_s=0.2, header_s=0.2)
    sock = connect(service, b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert rest_of(sock).startswith(b"HTTP/1.1 200")
    sock = connect(service, b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with pytest.raises(ConnectionError):
        drip(sock, b"\r\n")


def test_silent_connections_make_room_for_those_that_ask(serve, connect, wait_until):
    service = serve(max_connections=8, max_connections_per_peer=8, header_s=3600)
    silent = [connect(service) for _ in range(8)]
    wait_until(lambda: len(service._server.door.seats) == 8)
    asking = [
        connect(service, b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(3)
    ]
    assert all(sock.recv(1000).startswith(b"HTTP/1.1 200") for sock in asking)
    assert len(service._server.door.seats) == 8
    assert rest_of(silent[0]) == b""  # the oldest had to go


def test_connections_of_known_robots_are_never_closed_for_others():
    seats = Seats(4, 2)
    robots = [seats.take("10.0.0.1"), seats.take("10.0.0.2")]
    for seat in robots:
        seat.known = True
    strangers = [seats.take("10.0.9.9") for _ in range(9)]
    assert all(strangers)  # each took the place of the one before the last
    assert (len(seats), seats.cut) == (4, 7)
    for seat in strangers[-2:]:
        seat.known = True
    assert seats.take("10.0.0.3") is None
    assert seats.take("10.0.9.9") is None
    assert seats.refused == 2
    robots[0].leave()
    robots[0].leave()
    assert seats.take("10.0.0.3") is not None


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_a_peer_is_an_address_or_a_network_of_them(host, peer):
    assert network_of(host) == peer


def test_descriptors_are_kept_for_files_and_the_ledger(tmp_path, monkeypatch):
    settings = ServeSettings(root=tmp_path, max_connections=100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 2 * most_connections(settings) + connections.RESERVED_FILES <= soft
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, hard))
    assert most_connections(settings) == (256 - connections.RESERVED_FILES) // 2


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n" + b"a: " + b"x" * 50_000,
        b"GET /" + b"x" * 50_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 400,
        b"GET /v1/policies/main?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"t: x\r\n" * 400,
    ],
)
def test_headers_beyond_their_bounds_end_the_connection(serve, connect, head):
    service = serve()
    sock = connect(service)
    with contextlib.suppress(ConnectionError):
        sock.sendall(head)
    assert b" 200 " not in rest_of(sock)
    assert health(service) == 200


def test_a_body_in_tiny_pieces_does_not_pass_for_headers(serve, connect, make_chunk):
    """Chunked by a proxy, a body has a few bytes of overhead for each piece."""
    service = serve()
    key, data, sha256 = make_chunk()
    head = f"PUT /v1/chunks/{key.robot}/{key.session}/0 HTTP/1.1\r\nHost: localhost\r\n"
    head += f"X-Content-SHA256: {sha256}\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = [data[i : i + 512] for i in range(0, len(data), 512)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    assert b" 201 " in connect(service, head.encode() + body).recv(1000)


def test_large_chunks_one_after_the_other_do_not_pass_for_headers(serve, connect, make_chunk):
    service = serve()
    sock = connect(service)
    for seq in range(3):
        key, data, sha256 = make_chunk(seq, steps=400)
        assert len(data) > 2 * service.settings.max_header_bytes
        head = f"PUT /v1/chunks/{key.robot}/{key.session}/{seq} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"X-Content-SHA256: {sha256}\r\nContent-Length: {len(data)}\r\n\r\n"
        sock.sendall(head.encode() + data)
        said, piece = b"", b" "
        while b"}" not in said and piece:
            piece = sock.recv(1000)
            said += piece
        assert b" 201 " in said


def test_a_peer_that_does_not_read_is_closed(serve, connect, wait_until):
    service = serve(write_s=0.3)
    blob = bytes(64 << 20)
    repository = PolicyRepository(service.application.policies)
    sha256 = repository.publish(blob, b"golden", version=0).policy.sha256
    connect(service, f"GET /v1/blobs/{sha256} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    wait_until(lambda: len(service._server.door.seats) == 1)
    wait_until(lambda: len(service._server.door.seats) == 0)
    assert health(service) == 200
