"""TLS between robot and trainer, and what is refused without it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest
import trustme

from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.service import ServeSettings, Service
from wm_core.link.trainer.settings import SERVICE_FILE
from wm_core.link.trainer.tls import Certificates
from wm_core.link.trainer.tokens import add_token
from wm_core.page.mounted import mount


@pytest.fixture
def authority():
    return trustme.CA()


@pytest.fixture
def files(authority, tmp_path):
    """Issues a certificate for a name and gives back options of ``serve``."""

    def issue(name="127.0.0.1", *, by=authority, to="service"):
        certificate, key = tmp_path / f"{to}.pem", tmp_path / f"{to}.key"
        made = by.issue_cert(name, common_name=name)
        certificate.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return {"tls_cert": certificate, "tls_key": key}

    return issue


def send(service, chunk, authority, *, token=None, certificate=None):
    """PUTs a chunk over TLS; gives back (status, verdict)."""
    key, data, sha256 = chunk
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        context.load_cert_chain(certificate["tls_cert"], certificate["tls_key"])
    headers = {"X-Content-SHA256": sha256, "Authorization": f"Bearer {token}"}
    url = f"{service.url}/v1/chunks/{key.robot}/{key.session}/{key.seq}"
    request = urllib.request.Request(url, data, headers, method="PUT")
    try:
        with urllib.request.urlopen(request, context=context, timeout=60) as reply:
            return reply.status, json.load(reply)["verdict"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)["verdict"]


def test_a_chunk_travels_over_tls_with_a_token(serve, files, authority, make_chunk, tmp_path):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "rover")
    service = serve(tokens=tokens, **files())
    assert service.url.startswith("https://")
    assert send(service, make_chunk(), authority, token=token) == (201, "stored")
    assert send(service, make_chunk(seq=1), authority, token="x") == (401, "denied")


def test_a_robot_with_a_certificate_writes_under_its_own_name_only(
    serve, files, authority, make_chunk, tmp_path
):
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    service = serve(**files(), tls_client_ca=ca)
    rover = files("rover", to="rover")
    foreign = files("rover", by=trustme.CA(), to="foreign")
    assert send(service, make_chunk(), authority, certificate=rover) == (201, "stored")
    other = make_chunk(robot="other")
    assert send(service, other, authority, certificate=rover) == (403, "denied")
    for certificate in (None, foreign):
        with pytest.raises((OSError, ssl.SSLError)):
            send(service, make_chunk(seq=1), authority, certificate=certificate)


def test_a_robots_certificate_sees_itself_alone_and_the_operators_sees_all(
    files, authority, tmp_path, closing
):
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    settings = ServeSettings(root=tmp_path / "run", port=0, **files(), tls_client_ca=ca)
    service = Service(settings)
    mount(service)
    closing(service.start())

    def ask(name, path, body=None):
        context = ssl.create_default_context()
        authority.configure_trust(context)
        shown = files(name, to=name)
        context.load_cert_chain(shown["tls_cert"], shown["tls_key"])
        try:
            with urllib.request.urlopen(
                f"{service.url}{path}", body, context=context, timeout=60
            ) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    assert ask("rover", "/v1/live/rover", b'{"t_ns": 1}')[0] == 200
    for name, heard in (("rover", ["rover"]), ("arm", []), ("operator", ["rover"])):
        assert list(json.loads(ask(name, "/v1/live")[1])["robots"]) == heard
    status, said = ask("arm", "/v1/live?robot=rover")
    assert status == 403
    assert "of the name operator" in json.loads(said)["reason"]
    for path in ("/ui/", "/ui/episodes"):
        assert ask("rover", path)[0] == 403
        assert ask("operator", path)[0] == 200


def test_what_is_no_tls_is_closed_without_a_trace_in_the_log(serve, files, caplog):
    service = serve(header_s=0.3, **files())
    address = ("127.0.0.1", urlsplit(service.url).port)
    for said in (b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n", b"", b"\x16\x03\x01\x02\x00\x01"):
        with socket.create_connection(address, timeout=60) as sock:
            sock.sendall(said)
            assert b" 200 " not in sock.recv(1000)
    assert not caplog.records


def test_silent_connections_before_tls_make_room_for_robots(
    serve, files, authority, make_chunk, wait_until, caplog
):
    """A place is taken when a connection is accepted, not when its handshake ends."""
    service = serve(max_connections=6, max_connections_per_peer=6, header_s=3600, **files())
    address = ("127.0.0.1", urlsplit(service.url).port)
    seats = service._server.door.seats
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(address, timeout=60))
        wait_until(lambda: seats.cut >= 34)
        assert len(seats) == 6
        for seq in range(3):
            assert send(service, make_chunk(seq), authority) == (201, "stored")
        assert len(seats) <= 6
    wait_until(lambda: len(seats) == 0)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) < before + 20)  # 40 would have leaked
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


def test_old_versions_of_tls_are_refused(serve, files, authority):
    service = serve(**files())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((OSError, ssl.SSLError)):
        urllib.request.urlopen(f"{service.url}/v1/health", context=context, timeout=60)


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(files, caplog):
    now_s = 0.0
    paths = files()
    made = Certificates(paths["tls_cert"], paths["tls_key"], clock=lambda: now_s)
    good = paths["tls_cert"].read_bytes()
    paths["tls_cert"].write_bytes(b"half a cert")
    now_s = 61.0
    made.refresh()
    assert "stays in use" in caplog.text
    paths["tls_cert"].write_bytes(good)
    now_s = 122.0
    made.refresh()
    files()
    now_s = 183.0
    made.refresh()
    assert caplog.text.count("renewed") >= 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "without --tls-cert"),
        ({"tokens": True}, "without --tls-cert"),
        ({"tls": True}, "without --tokens"),
    ],
)
def test_other_machines_need_tls_and_tokens_or_an_owner_who_says_so(
    tmp_path, files, settings, said
):
    tokens = tmp_path / "tokens"
    add_token(tokens, "rover")
    given = {"root": tmp_path / "run", "host": "0.0.0.0", "port": 0}
    given |= {"tokens": tokens} if "tokens" in settings else {}
    given |= files() if "tls" in settings else {}
    with pytest.raises(SettingsError, match=said):
        Service(ServeSettings(**given))
    service = Service(ServeSettings(**given, insecure=True))
    assert any(said in risk for risk in service.risks)
    service._opened.close()
    both = {**given, "tokens": tokens, **files()}
    service = Service(ServeSettings(**both))
    assert service.risks == []
    service._opened.close()


def test_certificates_that_cannot_be_used_are_refused_at_the_start(tmp_path, files):
    given = files()
    wrong = files(to="other")
    for bad, said in (
        ({"tls_cert": tmp_path / "none"}, "none"),
        ({"tls_cert": given["tls_cert"], "tls_key": wrong["tls_key"]}, "belong together"),
        ({"tls_key": given["tls_key"]}, "need --tls-cert"),
        ({**given, "tls_client_ca": tmp_path / "none"}, "tls-client-ca"),
    ):
        with pytest.raises(SettingsError, match=said):
            Service(ServeSettings(root=tmp_path / "run", port=0, **bad))


def test_wm_serve_says_at_each_start_what_insecure_means(tmp_path, wait_until):
    root = tmp_path / "run"
    words = [sys.executable, "-m", "wm_core.cli.main", "serve", "--root", root, "--port", "0"]
    refused = subprocess.run([*words, "--host", "0.0.0.0"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    words += ["--host", "0.0.0.0", "--insecure"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        wait_until((root / SERVICE_FILE).exists)
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "insecure" in errors
