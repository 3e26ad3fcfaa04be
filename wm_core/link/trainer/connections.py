"""Connections of the service: how many there may be, and how long one may take for anything.

Whoever connects costs a descriptor and some memory before it is known who that is.  So the number
of connections is bounded, in all and by address; one that says nothing is closed; and at the bound
the oldest of those that never showed a valid token makes room.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
import socket
from collections import Counter
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from wm_core.link.trainer.answers import raw_answer
from wm_core.link.trainer.settings import ServeSettings
from wm_core.link.trainer.tls import Certificates, names_in

log = logging.getLogger(__name__)

RESERVED_FILES = 128  #: descriptors kept for files, the ledger and accepting
_MAX_HEADERS = 100
_MAX_PIPELINED = 4  # requests sent ahead of the answers
_PAUSE_S = 0.05  # after the system refused to accept a connection
_GOODBYE_S = 3.0  # to end TLS in order
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Seat:
    """Holds the place of one connection, from its acceptance until it is closed."""

    def __init__(self, seats: Seats, peer: str) -> None:
        self._seats, self.peer = seats, peer
        self.known = False  #: its peer has shown a valid token, or needs none
        self.opening: asyncio.Task[None] | None = None  #: while TLS is being agreed on
        self.transport: asyncio.Transport | None = None

    def leave(self) -> None:
        """Give the place back; a second call does nothing."""
        self._seats.remove(self)

    def cut(self) -> None:
        """Close the connection at once."""
        self.leave()
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()


class Seats:
    """Counts connections in all and by peer.

    Args:
        most: connections in all.
        most_per_peer: connections of one address; of a network of 2^64 addresses with IPv6.
    """

    def __init__(self, most: int, most_per_peer: int) -> None:
        self.most, self.most_per_peer = most, most_per_peer
        self.cut = 0  #: connections that were closed to make room
        self.refused = 0  #: connections that found no room
        self._seats: dict[Seat, None] = {}  # oldest first
        self._by_peer: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._seats)

    def take(self, host: str) -> Seat | None:
        """Give a place to a peer at address ``host``; None where there is none to be had."""
        peer = network_of(host)
        if self._by_peer[peer] >= self.most_per_peer and not self._make_room(peer):
            self.refused += 1
            return None
        if len(self._seats) >= self.most and not self._make_room(None):
            self.refused += 1
            return None
        seat = Seat(self, peer)
        self._seats[seat] = None
        self._by_peer[peer] += 1
        return seat

    def remove(self, seat: Seat) -> None:
        """Forget ``seat``; a second call does nothing."""
        if seat in self._seats:
            del self._seats[seat]
            self._by_peer[seat.peer] -= 1
            if not self._by_peer[seat.peer]:
                del self._by_peer[seat.peer]

    def _make_room(self, peer: str | None) -> bool:
        """Close the oldest connection, of ``peer`` if one is named, that showed no token."""
        for seat in self._seats:
            if not seat.known and peer in (None, seat.peer):
                seat.cut()
                self.cut += 1
                return True
        return False


def network_of(host: str) -> str:
    """Name the peer that ``host`` counts as: its IPv4 address, or its /64 network of IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def most_connections(settings: ServeSettings) -> int:
    """Bound the connections by the settings and by the descriptors that this process may open.

    A connection may need two: its own, and a file that is being sent.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(settings.max_connections, (soft - RESERVED_FILES) // 2))


class Door:
    """Accepts connections while there are places, agrees on TLS, and hands them to ``Connection``.

    Args:
        server: of Uvicorn, whose configuration and state the connections use.
        sock: bound and listening.
        settings: bounds and deadlines.
        certificates: of TLS; None for plain HTTP.
    """

    def __init__(
        self,
        server: Server,
        sock: socket.socket,
        settings: ServeSettings,
        certificates: Certificates | None = None,
    ) -> None:
        self._server, self._socket, self._settings = server, sock, settings
        self._certificates = certificates
        self.seats = Seats(most_connections(settings), settings.max_connections_per_peer)
        self._accepting: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to accept; called in the event loop."""
        self._socket.setblocking(False)
        self._accepting = asyncio.get_running_loop().create_task(self._accept())

    def close(self) -> None:
        """Accept no more; what is open stays open."""
        if self._accepting is not None:
            self._accepting.cancel()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(self._socket)
            except OSError as error:  # no descriptor or no memory just now
                log.warning("a connection could not be accepted: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            seat = self.seats.take(address[0])
            if seat is None:
                log.warning("no room for another connection of %s", address[0])
                sock.close()
                continue
            seat.opening = loop.create_task(self._open(seat, sock))

    async def _open(self, seat: Seat, sock: socket.socket) -> None:
        try:
            _watch_for_lost_peers(sock)
            more: dict[str, Any] = {}
            if self._certificates is not None:
                self._certificates.refresh()
                more = {
                    "ssl": self._certificates.context,
                    "ssl_handshake_timeout": self._settings.header_s,
                    "ssl_shutdown_timeout": _GOODBYE_S,
                }
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: Connection(self._server, seat, self._settings), sock, **more
            )
        except (OSError, asyncio.TimeoutError) as error:  # ssl.SSLError is an OSError
            log.info("a connection of %s was not opened: %s", seat.peer, error)
            sock.close()
            seat.leave()
        except BaseException:
            sock.close()
            seat.leave()
            raise
        finally:
            seat.opening = None


def _watch_for_lost_peers(sock: socket.socket) -> None:
    """Let the system notice peers that vanished without a word, and send answers at once."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connection(HttpToolsProtocol):
    """Speaks HTTP/1.1 with one peer, with bounds on sizes and deadlines on everything it does.

    Args:
        server: of Uvicorn.
        seat: place of this connection.
        settings: deadlines and bounds.
    """

    def __init__(self, server: Server, seat: Seat, settings: ServeSettings) -> None:
        super().__init__(server.config, server.server_state, {})
        self.seat, self._settings = seat, settings
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._idle = False  # between two requests, and nothing of the next one has come
        self._open_message = False  # a request has begun and has not ended
        self._overhead = 0  # bytes since the last request ended that are not of a body
        self._body = 0  # bytes of the request's body

    @property
    def gone(self) -> bool:
        """Whether the peer has closed the connection."""
        return self.transport is None or self.transport.is_closing()

    @property
    def names(self) -> set[str]:
        """Names in the certificate that the peer has shown; none without mutual TLS."""
        return names_in(self.transport.get_extra_info("peercert"))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.seat.transport = transport
        self._arm(self._settings.header_s)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._arm(None)
        self.resume_writing()
        self.seat.leave()

    def data_received(self, data: bytes) -> None:
        if self._idle:
            self._idle = False
            self._arm(self._settings.header_s)
        self._overhead += len(data)  # less what turns out to be of a body, in on_body
        super().data_received(data)
        if self._overhead > self._settings.max_header_bytes + self._body // 16:
            most = self._settings.max_header_bytes
            self._refuse(431, f"expected at most {most} bytes of headers, more came")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["wm_connection"] = self  # type: ignore[typeddict-unknown-key]
        self._open_message = True
        self._body = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= _MAX_HEADERS:
            raise httptools.HttpParserError(f"more than {_MAX_HEADERS} headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise httptools.HttpParserError(f"more than {_MAX_PIPELINED} requests in advance")
        self._arm(None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._open_message = False
        self._overhead = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the deadline below also meets a peer that drips
        if self._open_message:  # the rest of a refused body: nobody reads it any more
            self.transport.close()
        elif self.cycle.response_complete:
            self._idle = True
            self._arm(self._settings.idle_s)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self._settings.write_s, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _refuse(self, status: int, reason: str) -> None:
        """Answer what is no request of HTTP/1.1, or too much of one, and close."""
        if not self.gone:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(raw_answer(status, "bad_request", reason))
            self.transport.close()

    def _arm(self, seconds: float | None) -> None:
        """Close the connection in ``seconds`` unless armed again; None: leave it open."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        if not self._idle:
            most = self._settings.header_s
            self._refuse(408, f"the headers did not come within {most:g} s")
        else:
            self.transport.close()

    def _abort(self) -> None:
        self.transport.abort()
