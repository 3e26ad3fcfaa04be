"""Servers that behave as a test says, over real sockets, with and without TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import SimpleNamespace

import pytest
import trustme

from wm_core.contract.files import write_durably
from wm_core.format.chunk import chunk_path
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import ConnectionSettings, TrainerClient
from wm_core.link.robot.upload_settings import UploaderSettings
from wm_core.link.robot.uploader import Uploader

QUICK = {"backoff_first_s": 0.02, "backoff_most_s": 0.1, "denied_s": 0.2, "read_s": 5.0}


class ScriptedServer:
    """Answers each connection by ``handle(sock)``, in threads; remembers what it received."""

    def __init__(self, handle, context=None, host="127.0.0.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family)
        self._handle, self._context = handle, context
        self.connections = 0
        self._open = []
        name = f"[{host}]" if ":" in host else host
        self.port = self._listening.getsockname()[1]
        self.url = f"{'https' if context else 'http'}://{name}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock = self._listening.accept()[0]
                self.connections += 1
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with contextlib.suppress(OSError, ValueError), contextlib.closing(sock):
            if self._context:
                sock = self._context.wrap_socket(sock, server_side=True)
            with contextlib.closing(sock):
                self._handle(sock)

    def close(self):
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def head_of(file) -> list[str]:
    """Lines of the next request's head; ends the connection's thread where there is none."""
    lines = []
    while (line := file.readline()) not in (b"\r\n", b"\n"):
        if not line:
            raise ValueError("the client closed the connection")
        lines.append(line.decode().strip())
    return lines


def request_of(file) -> SimpleNamespace:
    """The next request: its first line, headers and body."""
    lines = head_of(file)
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    body = file.read(int(headers.get("content-length", 0)))
    return SimpleNamespace(line=lines[0], path=lines[0].split()[1], headers=headers, body=body)


def encoded(status, body=b"", headers=()) -> bytes:
    """A reply as bytes."""
    fields = {"Content-Length": len(body), **dict(headers)}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Words\r\n{head}\r\n".encode() + body


@pytest.fixture
def scripted(closing):
    """Starts a server whose connections are handled by a function of the socket."""
    return lambda handle, **kwargs: closing(ScriptedServer(handle, **kwargs))


@pytest.fixture
def answering(scripted):
    """Starts a server that answers each request by a function of it: (status, body, headers)."""

    def start(answer, **kwargs):
        requests = []

        def handle(sock):
            file = sock.makefile("rb")
            while True:
                requests.append(request_of(file))
                sock.sendall(encoded(*answer(requests[-1])))

        server = scripted(handle, **kwargs)
        server.requests = requests
        return server

    return start


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A certificate authority: its file, a server's context, and certificates of robots."""
    folder, made = tmp_path_factory.mktemp("ca"), trustme.CA()
    ca_file = folder / "ca.pem"
    made.cert_pem.write_to_path(ca_file)

    def context(*names, robots=False):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.issue_cert(*names).configure_cert(server)
        if robots:
            server.verify_mode = ssl.CERT_REQUIRED
            made.configure_trust(server)
        return server

    def robot(name):
        cert = made.issue_cert(name, common_name=name)
        path = folder / f"{name}.pem"
        cert.private_key_and_cert_chain_pem.write_to_path(path)
        return path

    service = folder / "service.pem"
    made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(service)
    return SimpleNamespace(
        ca_file=str(ca_file), context=context, robot=robot, service=str(service)
    )


# ------------------------------------------------------------------ a spool and its uploader


@pytest.fixture
def spool_folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def upload(spool_folder, closing):
    def start(url, *, token=None, access=None, **settings):
        settings = UploaderSettings(**QUICK | settings)
        access = AccessSettings(**access or {})
        return closing(
            Uploader(spool_folder, url=url, token=token, settings=settings, access=access)
        )

    return start


@pytest.fixture
def lay(spool_folder, make_chunk):
    """Lays a sealed chunk into the spool folder."""

    def make(*args, **kwargs):
        key, data, sha256 = make_chunk(*args, **kwargs)
        write_durably(chunk_path(spool_folder, key), data)
        return key, data, sha256

    return make


# ------------------------------------------------------------------ a client


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
