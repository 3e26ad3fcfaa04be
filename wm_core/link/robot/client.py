"""The robot's connection to the trainer: one kept-alive HTTP connection with deadlines.

Only the standard library.  A request that finds its kept connection closed by the other side is
sent once more on a new one: every request of the protocol may be repeated.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from typing import NamedTuple
from urllib.parse import urlsplit

from pydantic import Field

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Frozen

log = logging.getLogger(__name__)

FAILURES = (OSError, http.client.HTTPException)  #: what a request raises when the network fails
_PIECE_BYTES = 1 << 16
_MAX_REPLY_BYTES = 1 << 20


class ConnectionSettings(Frozen):
    """Deadlines of requests to the trainer, and waits after those that failed."""

    connect_s: float = Field(
        5.0, ge=0.001, le=3600, description="Seconds to wait for a connection"
    )
    read_s: float = Field(
        30.0, ge=0.001, le=3600, description="Seconds to wait for each piece sent or awaited"
    )
    backoff_first_s: float = Field(
        0.2, ge=0.001, le=3600, description="Seconds to wait after the first failure"
    )
    backoff_most_s: float = Field(
        30.0, ge=0.001, le=3600, description="Most seconds to wait after repeated failures"
    )


class Reply(NamedTuple):
    """A status with the whole of its (small) body."""

    status: int
    headers: Message
    body: bytes

    @property
    def retry_after_s(self) -> float:
        """What the trainer asks to wait, at most a minute; 0 where it does not say."""
        text = self.headers.get("Retry-After", "")
        return min(float(text), 60.0) if text.isdecimal() else 0.0


class TrainerClient:
    """Requests to one trainer, for one thread; ``abort`` and ``close`` may come from others.

    Args:
        url: such as ``http://trainer:8765``; a path before ``/v1`` is kept.
        token: what the robot shows to be let in.
        connect_s: deadline of a connection.
        read_s: deadline of each piece that is sent or awaited.
        bytes_per_s: bandwidth cap of what is sent; None for none.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        connect_s: float = 5.0,
        read_s: float = 30.0,
        bytes_per_s: float | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"expected a URL like http://trainer:8765, got {url!r}")
        kind = (
            http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        )
        self._connection = kind(parts.hostname, parts.port, timeout=connect_s)
        self._prefix = parts.path.rstrip("/")
        self._token, self._read_s = token, read_s
        self._cap = BandwidthCap(bytes_per_s) if bytes_per_s else None
        self._aborted = False

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        read_s: float | None = None,
    ) -> Reply:
        """Send a request and take its whole reply; raises one of ``FAILURES``."""
        with self.opened(method, path, body=body, headers=headers, read_s=read_s) as response:
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
        """The reply to a request, its body still to be read; raises one of ``FAILURES``."""
        send = dict(headers or {})
        if self._token:
            send["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            send["Content-Length"] = str(len(body))
        wait_s = self._read_s if read_s is None else read_s
        try:
            response = self._exchange(method, self._prefix + path, body, send, wait_s)
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
        """``body`` in pieces, no faster than the cap over all requests."""
        size = min(_PIECE_BYTES, self._cap.piece_bytes) if self._cap else _PIECE_BYTES
        for start in range(0, len(body), size):
            piece = body[start : start + size]
            if self._cap:
                time.sleep(self._cap.wait_s(len(piece), time.monotonic()))
            yield piece

    def abort(self) -> None:
        """End the request that another thread waits for, and any later one; it raises there."""
        self._aborted = True
        sock = self._connection.sock
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection; the next request makes a new one."""
        self._connection.close()


class BandwidthCap:
    """Says how long to wait before each piece, so that no more than ``bytes_per_s`` are sent."""

    def __init__(self, bytes_per_s: float) -> None:
        self.piece_bytes = max(1, int(bytes_per_s / 10))  #: a tenth of a second's
        self._bytes_per_s, self._free_at_s = bytes_per_s, 0.0

    def wait_s(self, size: int, now_s: float) -> float:
        """How long a piece of ``size`` bytes has to wait at ``now_s``; it is then sent."""
        wait_s = max(0.0, self._free_at_s - now_s)
        self._free_at_s = max(self._free_at_s, now_s) + size / self._bytes_per_s
        return wait_s


class Backoff:
    """Waits that double up to a bound, each drawn from the upper half of its range.

    Args:
        first_s: the first wait.
        most_s: the longest wait.
        rng: draws the jitter, which keeps a fleet from coming back all at once.
    """

    def __init__(
        self, first_s: float = 0.2, most_s: float = 30.0, rng: random.Random | None = None
    ) -> None:
        self._first_s, self._most_s, self._rng = first_s, most_s, rng or random.Random()
        self._wait_s = first_s

    def next_s(self, at_least_s: float = 0.0) -> float:
        """How long to wait now; longer each time."""
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, self._most_s)
        return max(at_least_s, wait_s * self._rng.uniform(0.5, 1.0))

    def reset(self) -> None:
        """Begin anew after a success."""
        self._wait_s = self._first_s


class Counters:
    """What a thread counts, and what ailed it last, for other threads to read.

    Args:
        what: names the thread's work in the log.
        names: of the counters that begin at 0.
    """

    def __init__(self, what: str, names: Iterable[str]) -> None:
        self._what, self._lock = what, threading.Lock()
        self._counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._error = ""

    def count(self, name: str, n: int = 1) -> None:
        """Add ``n`` to one counter."""
        with self._lock:
            self._counts[name] += n

    def set_error(self, error: str) -> None:
        """Keep the last error, empty for none; log it once, not at every attempt."""
        with self._lock:
            before, self._error = self._error, error
        if error and error != before:
            log.warning("%s: %s", self._what, error)

    def read(self) -> dict[str, int | str]:
        """Every counter, and the last error."""
        with self._lock:
            return {**self._counts, "last_error": self._error}
