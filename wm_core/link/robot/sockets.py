"""Makes the sockets of requests: every wait on one has an end, and another thread can cut it.

A lookup of a name cannot be cut short, so it runs in a thread of its own that is left behind.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
import ssl
import threading
import time
import weakref
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

_LOOK_S = 0.05  #: how often a wait for a name looks whether it was cut short
_KEEPALIVE_S, _KEEPALIVE_TIMES = 15, 4  #: a peer that is gone is noticed after 75 s of silence


class Exchange:
    """Says how long the sockets of one client may wait, and ends their waits.

    Args:
        patience_s: most seconds of one wait.
        loopback_only: refuse peers that are not on this machine.
    """

    def __init__(self, patience_s: float, *, loopback_only: bool = False) -> None:
        self.patience_s, self.loopback_only = patience_s, loopback_only
        self.until_s = math.inf  #: time.monotonic() at which every wait ends
        self.connect_s = patience_s
        self.dialled = 0  #: connections that were made
        self.aborted = threading.Event()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._names = _Names()

    def watch(self, sock: socket.socket) -> None:
        """Let ``abort`` end the waits on ``sock`` too."""
        with self._lock:
            self._sockets.add(sock)

    def wait_s(self) -> float:
        """Give the seconds that the next wait may last.

        Raises:
            ConnectionAbortedError: after ``abort``.
            TimeoutError: where the exchange has lasted too long.
        """
        if self.aborted.is_set():
            raise ConnectionAbortedError("the client was closed")
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out: the whole answer did not come in time")
        return min(self.patience_s, left_s)

    def abort(self) -> None:
        """End what any thread waits for on these sockets, now and later."""
        self.aborted.set()
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            with contextlib.suppress(OSError):  # not ssl's own, which would forget the encryption
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def dial(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of ``host`` that answers within ``connect_s`` in all.

        Raises:
            OSError: where none answers.
        """
        self.dialled += 1
        deadline_s = time.monotonic() + self.connect_s
        addresses = self._names.addresses(host, port, deadline_s, self.aborted)
        problem: OSError = OSError(f"{host} has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            left_s = deadline_s - time.monotonic()
            sock = _Plain(family, kind, protocol)
            sock.exchange = self
            self.watch(sock)
            try:
                if left_s <= 0 or self.aborted.is_set():
                    raise TimeoutError(f"timed out: no connection within {self.connect_s:g} s")
                sock.settimeout(left_s / (len(addresses) - number))  # a silent one leaves time
                _prepare(sock, self.patience_s)
                sock.connect(address)
                self._check_peer(host, sock)
                sock.settimeout(max(0.001, deadline_s - time.monotonic()))  # for TLS
                self.until_s = time.monotonic() + self.patience_s
                return sock
            except OSError as error:
                sock.close()
                problem = error
        raise problem

    def _check_peer(self, host: str, sock: socket.socket) -> None:
        peer = sock.getpeername()[0]
        if self.loopback_only and not is_this_machine(peer):
            raise ConnectionError(
                f"{host} is {peer}, not this machine: a token is not sent there without TLS; "
                "use https, or set allow_plain_http"
            )


class _Bounded:
    """Bounds each wait of a socket as its exchange says; mixed into both kinds of sockets."""

    exchange: Exchange

    def _bound(self) -> None:
        self.settimeout(self.exchange.wait_s())  # type: ignore[attr-defined]

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self._bound()
        return super().recv(*args, **kwargs)  # type: ignore[misc]

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._bound()
        return super().recv_into(*args, **kwargs)  # type: ignore[misc]

    def send(self, *args: Any, **kwargs: Any) -> int:
        self._bound()
        return super().send(*args, **kwargs)  # type: ignore[misc]

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._bound()
        super().sendall(*args, **kwargs)  # type: ignore[misc]


class _Plain(_Bounded, socket.socket):
    """Is a TCP socket whose waits are bounded."""


class _Tls(_Bounded, ssl.SSLSocket):
    """Is an encrypted socket whose waits are bounded."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Tls:
        self = super().__new__(cls, *args, **kwargs)
        cls.exchange.watch(self)
        return self


def use_exchange(
    manager: urllib3.PoolManager, exchange: Exchange, context: ssl.SSLContext
) -> None:
    """Let ``manager`` make all of its connections by ``exchange``."""
    context.sslsocket_class = type("_ClientTls", (_Tls,), {"exchange": exchange})

    class Dialled:
        def _new_conn(self: Any) -> socket.socket:
            try:
                return exchange.dial(self._dns_host, self.port)
            except OSError as error:  # urllib3 takes some kinds for an early answer
                raise NewConnectionError(self, str(error)) from error

    class Http(Dialled, HTTPConnection):
        pass

    class Https(Dialled, HTTPSConnection):
        pass

    class HttpPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Https

    manager.pool_classes_by_scheme = {"http": HttpPool, "https": HttpsPool}


def is_this_machine(host: str) -> bool:
    """Tell whether ``host``, an address or ``localhost``, is this machine."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _prepare(sock: socket.socket, patience_s: float) -> None:
    """Send small pieces at once, and notice a peer that is gone without a word."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_TIMES)
        unheard_ms = min(2**31 - 1, max(1, int(patience_s * 1000)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unheard_ms)


class _Names:
    """Looks up names for one client, one at a time, and waits no longer than asked."""

    def __init__(self) -> None:
        self._running: tuple[tuple[str, int], threading.Thread, list[Any]] | None = None

    def addresses(
        self, host: str, port: int, deadline_s: float, aborted: threading.Event
    ) -> list[Any]:
        """Give what ``socket.getaddrinfo`` gives.

        Raises:
            OSError: for a name that is unknown, or whose lookup takes too long.
        """
        host = host.strip("[]")
        with contextlib.suppress(socket.gaierror):  # an address needs no lookup
            return _look_up(host, port, socket.AI_NUMERICHOST)
        running = self._running
        if running is None or running[0] != (host, port) or not running[1].is_alive():
            running = self._running = self._begin(host, port)
        _, thread, found = running
        while thread.is_alive():
            if aborted.is_set():
                raise ConnectionAbortedError("the client was closed")
            if time.monotonic() >= deadline_s:
                raise TimeoutError(f"timed out: the name {host} was not resolved in time")
            thread.join(_LOOK_S)
        self._running = None
        if isinstance(found[0], OSError):
            raise found[0]
        return list(found[0])

    def _begin(self, host: str, port: int) -> tuple[tuple[str, int], threading.Thread, list[Any]]:
        found: list[Any] = []

        def look_up() -> None:
            try:
                found.append(_look_up(host, port, 0))
            except OSError as error:
                found.append(OSError(f"the name {host} cannot be resolved: {error}"))
            except UnicodeError:
                found.append(OSError(f"{host!r} is no name of a computer"))

        thread = threading.Thread(target=look_up, name="name-lookup", daemon=True)
        thread.start()
        return (host, port), thread, found


def _look_up(host: str, port: int, flags: int) -> list[Any]:
    return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP, flags)
