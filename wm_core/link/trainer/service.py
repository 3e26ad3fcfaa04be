"""Runs the service that receives chunks from robots and sends them policies.

``docs/http.md`` describes the protocol (the URL names version 1), ``application`` answers it.
A chunk is acknowledged after the fsync of its file and the commit of its row; sizes are checked
before memory is taken; without a tokens file only peers on the same machine are served.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time
from pathlib import Path

import uvicorn

from wm_core.contract.errors import StoreError
from wm_core.contract.files import json_text, try_lock, write_durably
from wm_core.link.trainer.access import is_loopback
from wm_core.link.trainer.application import Application
from wm_core.link.trainer.connections import Door
from wm_core.link.trainer.settings import POLICIES, SERVICE_FILE, STORE, ServeSettings
from wm_core.link.trainer.signals import SignalledServer
from wm_core.link.trainer.tls import certificates_of, risks_of

__all__ = ["POLICIES", "SERVICE_FILE", "STORE", "ServeSettings", "Service"]

_FINISH_S = 10  # to store what was received, when the service ends


class Service:
    """Listens for robots and answers them; ``run`` blocks, ``start`` does not.

    Args:
        settings: what to store and where to listen.

    Raises:
        StoreError: where another service has the root, nothing can be written there, or the
            address cannot be had.
        SettingsError: where tokens or certificates cannot be read, or other machines could reach
            the service without them.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._thread: threading.Thread | None = None
        self.settings = settings
        self.risks: list[str]  #: what its owner has to know of how it listens
        host, port = settings.host, settings.port
        with contextlib.ExitStack() as opened:
            opened.callback(os.close, _lock_root(settings.root))
            try:
                self._socket = _listen(host, port)
            except OSError as error:
                raise StoreError(
                    f"cannot listen on {host}:{port}: {error.strerror or error}; choose another "
                    "--port, 0 for a free one"
                ) from error
            opened.callback(self._socket.close)
            where = self._socket.getsockname()[0]
            self.risks = risks_of(settings, loopback=is_loopback(where))
            certificates = certificates_of(settings)
            self.application = Application(settings)
            opened.callback(self.application.close)
            self._opened = opened.pop_all()
        name = f"[{host}]" if ":" in host else host
        scheme = "http" if certificates is None else "https"
        self.url = f"{scheme}://{name}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self.application.app,
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="uvloop",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.drain_s) + _FINISH_S,
        )
        self._server = _Server(config, self)
        self._server.door = Door(self._server, self._socket, settings, certificates)
        self.application.health_routes.seats = self._server.door.seats

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, or ``close`` from another thread.

        Raises:
            StoreError: where the disk has no room to say where the service listens.
        """
        with self._opened:
            try:
                self._server.run(sockets=[self._socket])
            finally:
                with contextlib.suppress(OSError):
                    (self.settings.root / SERVICE_FILE).unlink()

    def start(self) -> Service:
        """Serve in a thread; returns once requests are answered."""
        self._thread = threading.Thread(target=self.run, name="service", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        return self

    def close(self) -> None:
        """Stop a started service; a second call does nothing."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join(self.settings.drain_s + 2 * _FINISH_S)

    def announce(self) -> None:
        """Write where the service listens to ``root/service.json``."""
        text = json_text({"url": self.url, "pid": os.getpid()})
        try:
            write_durably(self.settings.root / SERVICE_FILE, text.encode())
        except OSError as error:
            raise _unusable(self.settings.root, error) from error


class _Server(SignalledServer):
    """Runs Uvicorn, announces itself, answers waiting robots when it ends, and exits normally."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.door: Door

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self.door.open()
        self._service.announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.door.close()
        self._service.application.drain()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    """Open the socket that robots connect to.

    The event loop switches Nagle's algorithm off only for sockets that name their protocol; with
    it on, each answer waits for the peer's delayed acknowledgement, about 40 ms.
    """
    plain = socket.create_server((host, port), backlog=1024)
    return socket.socket(plain.family, plain.type, socket.IPPROTO_TCP, fileno=plain.detach())


def _lock_root(root: Path) -> int:
    """Mark ``root`` as served by this process; returns the handle of the lock."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = try_lock(root / "service.lock")
    except OSError as error:
        raise _unusable(root, error) from error
    if handle is None:
        raise StoreError(f"{root} is already served by another process")
    return handle


def _unusable(root: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot write to {root}: {error}; make room there or name another root")
