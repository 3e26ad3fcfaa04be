"""Runs the page: in a process of its own, or in that of the trainer's service."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.access import is_loopback
from wm_core.link.trainer.signals import SignalledServer
from wm_core.link.trainer.tokens import Tokens
from wm_core.page.application import PageApplication
from wm_core.page.board import Board
from wm_core.page.hearing import Hearing
from wm_core.page.run_reader import RunReader
from wm_core.page.settings import PageSettings
from wm_core.page.viewers import Viewers

_FINISH_S = 3  # for open pages, when the process ends


class PageServer:
    """Shows a run on a port of its own; ``run`` blocks.

    Args:
        settings: what is shown, where, and to whom.

    Raises:
        SettingsError: where the address cannot be had, other machines could look without a token
            or TLS, or a file that is named cannot be used.
    """

    def __init__(self, settings: PageSettings) -> None:
        _check(settings)
        tokens = Tokens(settings.tokens) if settings.tokens else None
        hearing = Hearing(
            settings.root, settings.trainer, settings.token_file, settings.trainer_ca
        )
        self._reader = RunReader(settings.root)
        self.board = Board(self._reader, hearing.listen)
        secure = settings.tls_cert is not None
        page = PageApplication(
            self.board,
            Viewers(tokens),
            allow_rollback=settings.allow_rollback,
            secure=secure,
        )
        app = Starlette(routes=[Route("/", _entrance), *page.routes])
        try:
            self._socket = socket.create_server(
                (settings.host, settings.port),
                family=socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
            )
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; "
                "choose another --port, 0 for a free one"
            ) from error
        name = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "https" if secure else "http"
        self.url = f"{scheme}://{name}:{self._socket.getsockname()[1]}/ui/"
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_FINISH_S,
            limit_concurrency=256,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
        try:
            config.load()
        except (OSError, ssl.SSLError) as error:
            self._socket.close()
            raise SettingsError(f"--tls-cert {settings.tls_cert}: {error}") from error
        self._server = _Server(config, self.board)

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
            self._reader.close()

    def close(self) -> None:
        """End a server that runs in another thread."""
        self._server.should_exit = True


class _Server(SignalledServer):
    """Lets open pages go when it ends, so that nobody waits for them."""

    def __init__(self, config: uvicorn.Config, board: Board) -> None:
        super().__init__(config)
        self._board = board

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._board.close()
        await super().shutdown(sockets)


async def _entrance(request: Request) -> Response:
    return RedirectResponse("/ui/", 307)


def _check(settings: PageSettings) -> None:
    if settings.tls_key is not None and settings.tls_cert is None:
        raise SettingsError("--tls-key needs --tls-cert FILE")
    if settings.root.exists() and not settings.root.is_dir():
        raise SettingsError(f"--root {settings.root}: expected a run folder, got a file")
    if settings.trainer and not settings.trainer.startswith(("http://", "https://")):
        raise SettingsError(
            f"--trainer {settings.trainer}: expected an address such as http://127.0.0.1:8765"
        )
    try:
        loopback = settings.host == "localhost" or is_loopback(settings.host)
    except ipaddress.AddressValueError:
        loopback = False
    if loopback:
        return
    missing: Sequence[str] = [
        *(["--tokens FILE"] if settings.tokens is None else []),
        *(["--tls-cert FILE"] if settings.tls_cert is None and not settings.insecure else []),
    ]
    if missing:
        raise SettingsError(
            f"--host {settings.host} is reached from other machines: expected "
            f"{' and '.join(missing)}; --insecure does without TLS"
        )
