"""Sends the robot's requests to the trainer over one kept-alive connection with deadlines.

Redirects are not followed, nothing is decompressed, and a reply is bounded before memory is
taken for it.  A request whose kept connection was closed by the other side is sent once more on a
new one: every request of the protocol may be repeated.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import urllib3
from urllib3.exceptions import HTTPError

from wm_core.contract.frozen import Frozen, ranged
from wm_core.link.robot.access import (
    AccessSettings,
    check_plain,
    check_token,
    parse_address,
    pool_manager,
    proxy_for,
    tls_context,
)
from wm_core.link.robot.sockets import Exchange, use_exchange

FAILURES = (OSError,)  #: what a request raises when the network fails
_PIECE_BYTES = 1 << 14  #: bytes of which each must pass within ``read_s``
_MAX_REPLY_BYTES = 1 << 20
_LEAST_BYTES_PER_S = 1000  #: of a long reply, after ``read_s``
_LONGEST_RETRY_AFTER_S = 300.0


class ConnectionSettings(Frozen):
    """Sets deadlines of requests to the trainer, and waits after those that failed."""

    connect_s: float = ranged(5.0, 0.001, 3600, "Seconds to wait for a connection")
    read_s: float = ranged(
        30.0, 0.001, 3600, "Seconds to wait for each piece sent, and for a whole small answer"
    )
    backoff_first_s: float = ranged(0.2, 0.001, 3600, "Seconds to wait after the first failure")
    backoff_most_s: float = ranged(
        30.0, 0.001, 3600, "Most seconds to wait after repeated failures"
    )


class NotReachedError(ConnectionError):
    """The request got no whole answer; the message says why in one line."""


class Reply(NamedTuple):
    """Holds a reply with its whole (small) body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """Give the seconds that the other side asks to wait, at most 300; 0 where it does not."""
        text = self.headers.get("Retry-After", "").strip()
        if re.fullmatch(r"[0-9]+", text):
            return min(float(text), _LONGEST_RETRY_AFTER_S)
        until_s, now_s = _seconds_of(text), _seconds_of(self.headers.get("Date", ""))
        if not until_s:
            return 0.0
        wait_s = until_s - (now_s or time.time())  # our own clock may be wrong
        return min(max(wait_s, 0.0), _LONGEST_RETRY_AFTER_S)


class OpenReply:
    """Reads a reply piece by piece, as long as it comes fast enough."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, exchange: Exchange) -> None:
        self._raw, self._exchange = raw, exchange
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers

    def read(self, size: int) -> bytes:
        """Give the next piece of at most ``size`` bytes; empty at the end."""
        piece = self._raw.read1(size, decode_content=False) or b""
        self._exchange.until_s += len(piece) / _LEAST_BYTES_PER_S
        return piece


class TrainerClient:
    """Sends requests of one thread to one trainer; other threads may ``abort`` and ``close``.

    Args:
        url: such as ``https://trainer:8765``; a path before ``/v1`` is kept.
        token: authenticates the robot.
        settings: deadlines.
        access: certificates and proxy.
        cap: bounds the bytes per second that are sent; several clients may share it.

    Raises:
        SettingsError: for an address or a file that cannot be used, or a token that would travel
            readable to another machine.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        settings: ConnectionSettings | None = None,
        access: AccessSettings | None = None,
        cap: BandwidthCap | None = None,
    ) -> None:
        settings, access = settings or ConnectionSettings(), access or AccessSettings()
        check_token(token)
        address = parse_address(url)
        only_here = check_plain(address, token, access)
        self._exchange = Exchange(settings.read_s, loopback_only=only_here)
        self._exchange.connect_s = settings.connect_s
        proxy = proxy_for(address, access)
        encrypted = "https" in (address.scheme, proxy.partition(":")[0])
        context = tls_context(access, needed=encrypted)
        self._manager = pool_manager(proxy, context)
        use_exchange(self._manager, self._exchange, context)
        self._base, self._token, self._cap = address.base, token, cap
        self._read_s = settings.read_s
        self.sent_bytes = 0  #: of the last request's body that were handed to the system

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float | None = None,
    ) -> Reply:
        """Send a request and read its whole reply, of which 1 MiB at most is kept.

        Raises:
            OSError: one of ``FAILURES``, where no whole reply came in time.
        """
        with self._answered(method, path, body, headers, read_s) as raw:
            content = bytearray()
            while len(content) < _MAX_REPLY_BYTES:
                piece = raw.read1(_MAX_REPLY_BYTES - len(content), decode_content=False)
                if not piece:
                    break
                content += piece
            return Reply(raw.status, raw.headers, bytes(content))

    @contextlib.contextmanager
    def opened(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float | None = None,
    ) -> Iterator[OpenReply]:
        """Send a request and leave the reply's body to be read; raises as ``request`` does."""
        with self._answered(method, path, body, headers, read_s) as raw:
            yield OpenReply(raw, self._exchange)

    @contextlib.contextmanager
    def _answered(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        read_s: float | None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        wait_s = self._read_s if read_s is None else read_s
        self._exchange.patience_s = wait_s
        raw = None
        try:
            raw = self._send(method, self._base + path, body, headers or {}, wait_s)
            yield raw
            if not raw.closed:  # left unread: the connection cannot be used again
                raw.close()
            raw.release_conn()
        except (HTTPError, http.client.HTTPException) as error:
            self._drop(raw)
            raise NotReachedError(_why(error)) from error
        except BaseException:
            self._drop(raw)
            raise

    def _send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], wait_s: float
    ) -> urllib3.BaseHTTPResponse:
        sent = {"Accept-Encoding": "identity", "User-Agent": "wm_ros", **headers}
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            sent["Content-Length"] = str(len(body))
        while True:
            if self._exchange.aborted.is_set():
                raise ConnectionAbortedError("the client was closed")
            dialled = self._exchange.dialled
            self._exchange.until_s = time.monotonic() + wait_s
            self.sent_bytes = 0
            try:
                return self._manager.urlopen(
                    method,
                    url,
                    body=None if body is None else self._pieces(body, wait_s),
                    headers=sent,
                    redirect=False,
                    retries=False,
                    timeout=urllib3.Timeout(connect=None, read=None),  # the sockets bound it
                    preload_content=False,
                    decode_content=False,
                )
            except HTTPError as error:
                kept = self._exchange.dialled == dialled
                if not kept or not isinstance(_root(error), ConnectionError):
                    raise

    def _pieces(self, body: bytes, wait_s: float) -> Iterator[bytes]:
        """Cut ``body`` into pieces; each has its own deadline and waits as the cap asks."""
        size = min(_PIECE_BYTES, self._cap.piece_bytes) if self._cap else _PIECE_BYTES
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            if self._cap and self._exchange.aborted.wait(self._cap.wait_s(len(piece))):
                raise ConnectionAbortedError("the client was closed")
            self._exchange.until_s = time.monotonic() + wait_s
            yield piece
            self.sent_bytes += len(piece)
        self._exchange.until_s = time.monotonic() + wait_s  # for the whole answer

    def _drop(self, raw: urllib3.BaseHTTPResponse | None) -> None:
        if raw is not None:
            raw.close()
        self.close()

    def abort(self) -> None:
        """Make the request that another thread waits for, and any later one, raise there."""
        self._exchange.abort()

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        self._manager.clear()


class BandwidthCap:
    """Computes the waits between pieces, so that at most ``bytes_per_s`` are sent in all."""

    def __init__(self, bytes_per_s: float) -> None:
        self.piece_bytes = max(1, int(bytes_per_s / 10))  #: a tenth of a second's
        self._bytes_per_s, self._free_at_s = bytes_per_s, 0.0
        self._lock = threading.Lock()

    def wait_s(self, size: int, now_s: float | None = None) -> float:
        """Give the seconds that a piece of ``size`` bytes waits, from ``now_s`` on."""
        now_s = time.monotonic() if now_s is None else now_s
        with self._lock:
            wait_s = max(0.0, self._free_at_s - now_s)
            self._free_at_s = max(self._free_at_s, now_s) + size / self._bytes_per_s
        return wait_s


def _root(error: BaseException) -> BaseException:
    """Find the error that the library's errors wrap."""
    for _ in range(8):
        inner = next((a for a in error.args if isinstance(a, BaseException)), error.__cause__)
        if inner is None:
            break
        error = inner
    return error


def _why(error: BaseException) -> str:
    """Say in one line why there is no answer, and what to do where that is known."""
    root = _root(error)
    if isinstance(root, ssl.SSLCertVerificationError):
        return (
            f"the trainer's certificate is not trusted: {root.verify_message}; set ca_file to the "
            "certificate that signed it, and use the name that it was made for"
        )
    if isinstance(root, ssl.SSLError):
        return f"no TLS with the trainer: {root}; see whether the address is https there"
    text = " ".join(str(root).split())[:300]
    return text if type(root) is OSError else f"{type(root).__name__}: {text}"


def _seconds_of(date: str) -> float:
    """Read a date of HTTP as seconds since 1970; 0 where it is none."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
