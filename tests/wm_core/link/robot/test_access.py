"""A request goes where it should, and a token nowhere else."""

from __future__ import annotations

import http.server
import socket
import threading

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.link.robot import sockets
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import (
    FAILURES,
    TrainerClient,
)

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
