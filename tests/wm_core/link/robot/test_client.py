"""Requests end in time, go only where they should, and take no more memory than stated."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import http.server
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.link.robot import sockets
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import (
    FAILURES,
    BandwidthCap,
    ConnectionSettings,
    Reply,
    TrainerClient,
)

MIB = 1 << 20


@pytest.fixture
def client(closing):
    def make(url, *, token=None, cap=None, read_s=60.0, connect_s=60.0, **access):
        return closing(
            TrainerClient(
                url,
                token=token,
                settings=ConnectionSettings(read_s=read_s, connect_s=connect_s),
                access=AccessSettings(**{"proxy": "none"} | access),
                cap=cap,
            )
        )

    return make


# ------------------------------------------------------------------ where a request goes


def test_a_certificate_of_the_named_authority_is_accepted_and_no_other(
    answering, client, authority
):
    server = answering(lambda _: (200, b"hello"), context=authority.context("127.0.0.1"))
    got = client(server.url, ca_file=authority.ca_file, token="secret").request("GET", "/v1/x")
    assert (got.status, got.body) == (200, b"hello")
    assert server.requests[0].headers["authorization"] == "bearer secret"
    with pytest.raises(FAILURES, match="set ca_file"):
        client(server.url, token="secret").request("GET", "/v1/x")
    named = f"https://localhost:{server.port}"  # its certificate is made for the address
    with pytest.raises(FAILURES, match="not trusted"):
        client(named, ca_file=authority.ca_file, token="secret").request("GET", "/v1/x")
    assert len(server.requests) == 1


def test_the_robot_shows_its_own_certificate(answering, client, authority):
    context = authority.context("127.0.0.1", robots=True)
    server = answering(lambda _: (200,), context=context)
    mine = {"ca_file": authority.ca_file, "client_certificate": str(authority.robot("rover"))}
    assert client(server.url, **mine).request("GET", "/").status == 200
    with pytest.raises(FAILURES):
        client(server.url, ca_file=authority.ca_file).request("GET", "/")


@pytest.mark.parametrize(
    ("access", "word"),
    [
        ({"ca_file": "/nowhere.pem"}, "ca_file"),
        ({"ca_file": __file__}, "ca_file"),
        ({"client_certificate": __file__}, "client_certificate"),
        ({"client_key": __file__}, "client_certificate is not"),
        ({"proxy": "proxy:3128"}, "proxy"),
        ({"proxy": "http://a b:3128"}, "proxy"),
    ],
)
def test_access_that_cannot_work_is_refused_at_once(access, word):
    with pytest.raises(SettingsError, match=word):
        TrainerClient("https://trainer.example:8765", access=AccessSettings(**access))


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(tmp_path, authority):
    from cryptography.hazmat.primitives import serialization as forms

    pem = authority.robot("locked").read_bytes()
    key = forms.load_pem_private_key(pem, None)
    locked = tmp_path / "key.pem"
    locked.write_bytes(
        key.private_bytes(
            forms.Encoding.PEM,
            forms.PrivateFormat.PKCS8,
            forms.BestAvailableEncryption(b"passphrase"),
        )
    )
    access = AccessSettings(
        client_certificate=str(authority.robot("locked")), client_key=str(locked)
    )
    with pytest.raises(SettingsError, match="without a passphrase"):
        TrainerClient("https://trainer.example", access=access)


def test_a_token_leaves_the_machine_only_by_tls_or_as_allowed():
    plain = "http://trainer.example:8765"
    with pytest.raises(SettingsError, match="allow_plain_http"):
        TrainerClient(plain, token="secret")
    TrainerClient(plain).close()
    TrainerClient("https://trainer.example:8765", token="secret").close()
    for host in ("127.0.0.1", "127.8.9.1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"):
        TrainerClient(f"http://{host}:8765", token="secret").close()
    for host in ("10.0.0.1", "[fe80::1]", "localhost.example", "0.0.0.0", "127.0.0.1.example"):
        with pytest.raises(SettingsError, match="allow_plain_http"):
            TrainerClient(f"http://{host}:8765", token="secret")
    allowed = AccessSettings(allow_plain_http=True)
    TrainerClient(plain, token="secret", access=allowed).close()


def test_a_local_name_that_leads_elsewhere_gets_no_token():
    exchange = sockets.Exchange(60.0, loopback_only=True)
    elsewhere = next(
        (
            info[4][0]
            for info in socket.getaddrinfo(socket.gethostname(), 1, socket.AF_INET)
            if not sockets.is_this_machine(info[4][0])
        ),
        None,
    )
    if elsewhere is None:
        pytest.skip("this machine has no address beside the loopback")
    with (
        socket.create_server((elsewhere, 0)) as server,
        pytest.raises(ConnectionError, match="not this machine"),
    ):
        exchange.dial(elsewhere, server.getsockname()[1])


@pytest.mark.parametrize(
    "url",
    [
        "trainer:8765",
        "ftp://trainer",
        "http://",
        "http://user:secret@trainer",
        "http://trainer/?a=b",
        "http://trainer/#a",
        "http://trainer:99999",
        "http://trainer:port",
        "http://trainer/a b",
        "http://trainer/\r\nX: y",
        "",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(SettingsError, match="trainer_url"):
        TrainerClient(url)


@pytest.mark.parametrize("token", ["a\r\nX-Robot: other", "a b", "ключ", "", "a\0", "a" * 5000])
def test_a_token_cannot_bring_headers_of_its_own(token):
    with pytest.raises(SettingsError, match="token_file"):
        TrainerClient("http://127.0.0.1", token=token)


def test_a_redirect_is_not_followed(answering, client):
    other = answering(lambda _: (200,))
    server = answering(lambda _: (307, b"", {"Location": f"{other.url}/v1/x"}))
    assert client(server.url, token="secret").request("PUT", "/v1/x", body=b"1").status == 307
    assert other.connections == 0


def test_a_path_before_the_protocols_own_is_kept(answering, client):
    server = answering(lambda _: (200,))
    client(f"{server.url}/robots/").request("GET", "/v1/x?a=1")
    assert server.requests[0].path == "/robots/v1/x?a=1"


def test_a_server_of_ipv6_is_reached(answering, client):
    if not socket.has_ipv6:
        pytest.skip("this Python is not built with IPv6")
    try:
        server = answering(lambda _: (200,), host="::1")
    except OSError:
        pytest.skip("this machine has no address beside the loopback of IPv4")
    assert client(server.url, token="secret").request("GET", "/").status == 200


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes on requests: whole ones of http, and a tunnel for https."""

    def do_CONNECT(self):
        self.server.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        port = int(self.path.rpartition(":")[2])  # every name is this machine
        with socket.create_connection(("127.0.0.1", port)) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=self._pass_on, args=(there, self.connection))
            back.start()
            self._pass_on(self.connection, there)
            back.join()
        self.close_connection = True

    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @staticmethod
    def _pass_on(one, other):
        try:
            while piece := one.recv(65536):
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def log_message(self, *args):
        pass


@pytest.fixture
def proxy():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.seen, server.daemon_threads = [], True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_proxy_of_the_setting_or_the_environment_is_used(
    answering, client, proxy, authority, monkeypatch
):
    """The trainer is named by an address that only the proxy can reach."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    where = f"127.0.0.1:{proxy.server_port}"
    plain = client("http://trainer.invalid", proxy=f"http://me:p%40ss@{where}")
    assert plain.request("GET", "/v1/health").status == 200
    assert proxy.seen.pop() == ("http://trainer.invalid:80/v1/health", "Basic bWU6cEBzcw==")
    monkeypatch.setenv("HTTP_PROXY", f"http://{where}")
    monkeypatch.setenv("http_proxy", f"http://{where}")
    assert client("http://trainer.invalid", proxy="").request("GET", "/v1/x").status == 200
    assert proxy.seen.pop()[0] == "http://trainer.invalid:80/v1/x"
    server = answering(lambda _: (200,), context=authority.context("127.0.0.1"))
    assert (
        client(server.url, proxy="", ca_file=authority.ca_file).request("GET", "/").status == 200
    )
    assert proxy.seen == []  # this machine needs no proxy
    monkeypatch.setenv("no_proxy", "trainer.invalid")
    with pytest.raises(FAILURES, match="resolved"):
        client("http://trainer.invalid", proxy="").request("GET", "/v1/x")


def test_tls_goes_through_a_proxys_tunnel(answering, client, proxy, authority):
    server = answering(lambda _: (200, b"hello"), context=authority.context("trainer.test"))
    far = client(
        f"https://trainer.test:{server.port}",
        ca_file=authority.ca_file,
        proxy=f"http://127.0.0.1:{proxy.server_port}",
    )
    assert far.request("GET", "/v1/x").body == b"hello"
    assert proxy.seen[0][0] == f"trainer.test:{server.port}"
    far.close()


# ------------------------------------------------------------------ what ends a request


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
