"""Sends the robot's requests to the trainer over one kept-alive HTTP connection with deadlines.

It needs only the standard library.  A request whose kept connection was closed by the other side
is sent once more on a new one: every request of the protocol may be repeated.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from wm_core.contract.errors import SettingsError
from wm_core.contract.frozen import Frozen, ranged

FAILURES = (OSError, http.client.HTTPException)  #: what a request raises when the network fails
_PIECE_BYTES = 1 << 16
_MAX_REPLY_BYTES = 1 << 20


class ConnectionSettings(Frozen):
    """Sets deadlines of requests to the trainer, and waits after those that failed."""

    connect_s: float = ranged(5.0, 0.001, 3600, "Seconds to wait for a connection")
    read_s: float = ranged(30.0, 0.001, 3600, "Seconds to wait for each piece sent or awaited")
    backoff_first_s: float = ranged(0.2, 0.001, 3600, "Seconds to wait after the first failure")
    backoff_most_s: float = ranged(
        30.0, 0.001, 3600, "Most seconds to wait after repeated failures"
    )


class Reply(NamedTuple):
    """Holds a reply with its whole (small) body."""

    status: int
    headers: Message
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """Give the seconds that the trainer asks to wait, at most 60; 0 where it does not ask."""
        text = self.headers.get("Retry-After", "")
        return min(float(text), 60.0) if text.isdecimal() else 0.0


class TrainerClient:
    """Sends requests of one thread to one trainer; other threads may ``abort`` and ``close``.

    Args:
        url: such as ``http://trainer:8765``; a path before ``/v1`` is kept.
        token: authenticates the robot.
        settings: deadlines.
        bytes_per_s: most bytes per second that are sent; 0 for no bound.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        settings: ConnectionSettings | None = None,
        bytes_per_s: float = 0.0,
    ) -> None:
        parts, settings = urlsplit(url), settings or ConnectionSettings()
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"expected a URL like http://trainer:8765, got {url!r}")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.hostname, parts.port, timeout=settings.connect_s)
        self._prefix = parts.path.rstrip("/")
        self._token, self._read_s = token, settings.read_s
        self._cap = BandwidthCap(bytes_per_s) if bytes_per_s else None
        self._aborted = False

    def request(self, method: str, path: str, **options: Any) -> Reply:
        """Send a request as ``opened`` does and read its whole reply."""
        with self.opened(method, path, **options) as response:
            content = response.read(_MAX_REPLY_BYTES)
            return Reply(response.status, response.headers, content)

    @contextlib.contextmanager
    def opened(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Send a request and leave the reply's body to be read; raises one of ``FAILURES``."""
        sent_headers = dict(headers or {})
        if self._token:
            sent_headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            sent_headers["Content-Length"] = str(len(body))
        wait_s = self._read_s if read_s is None else read_s
        try:
            response = self._exchange(method, self._prefix + path, body, sent_headers, wait_s)
            yield response
            if not response.isclosed():  # left unread: the connection cannot be used again
                self.close()
        except BaseException:
            self.close()
            raise

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], read_s: float
    ) -> http.client.HTTPResponse:
        for kept in (self._connection.sock is not None, False):
            try:
                if self._connection.sock is None:
                    self._connection.connect()
                if self._aborted:
                    raise ConnectionAbortedError("the client was closed")
                self._connection.sock.settimeout(read_s)
                pieces = None if body is None else self._pieces(body)
                self._connection.request(method, path, body=pieces, headers=headers)
                return self._connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                self.close()
                if not kept or self._aborted:
                    raise
        raise AssertionError("unreachable: the second attempt returns or raises")

    def _pieces(self, body: bytes) -> Iterator[bytes]:
        """Cut ``body`` into pieces, and wait for each as the bandwidth cap asks."""
        size = min(_PIECE_BYTES, self._cap.piece_bytes) if self._cap else _PIECE_BYTES
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            if self._cap:
                time.sleep(self._cap.wait_s(len(piece), time.monotonic()))
            yield piece

    def abort(self) -> None:
        """Make the request that another thread waits for, and any later one, raise there."""
        self._aborted = True
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next request makes a new one."""
        self._connection.close()


class BandwidthCap:
    """Computes the waits between pieces, so that at most ``bytes_per_s`` are sent."""

    def __init__(self, bytes_per_s: float) -> None:
        self.piece_bytes = max(1, int(bytes_per_s / 10))  #: a tenth of a second's
        self._bytes_per_s, self._free_at_s = bytes_per_s, 0.0

    def wait_s(self, size: int, now_s: float) -> float:
        """Give the seconds that a piece of ``size`` bytes waits at ``now_s`` before it is sent."""
        wait_s = max(0.0, self._free_at_s - now_s)
        self._free_at_s = max(self._free_at_s, now_s) + size / self._bytes_per_s
        return wait_s
