"""``wm serve``: receive the experience of robots and send them new policies."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Sequence

from pydantic import Field
from rich.console import Console
from rich.logging import RichHandler

from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.connections import RESERVED_FILES
from wm_core.link.trainer.log_limit import LogLimit
from wm_core.link.trainer.service import POLICIES, STORE, ServeSettings, Service
from wm_core.link.trainer.tokens import add_token


class Serve(ServeSettings):
    """Run the trainer's service: it receives experience from robots and sends them policies."""

    new_token: str = Field(
        "", description="Robot to make a token for: adds its hash to --tokens, prints it and ends"
    )


def main(argv: Sequence[str]) -> int:
    """Run the verb; 0 after SIGINT or SIGTERM."""
    settings = parse(Serve, argv, verb="serve")
    console = Console(highlight=False, soft_wrap=True)
    if settings.new_token:
        if settings.tokens is None:
            raise SettingsError(
                "--new-token needs --tokens FILE, to which the hash of the token is added"
            )
        token = add_token(settings.tokens, settings.new_token)
        console.print(f"token of {settings.new_token}, shown only now: {token}", markup=False)
        return 0
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    handler.addFilter(LogLimit())
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    _allow_open_files(2 * settings.max_connections + 2 * RESERVED_FILES)
    service = Service(settings)
    for risk in service.risks:
        logging.warning("insecure: %s", risk)
    who = f"robots of {settings.tokens}" if settings.tokens else "this machine only"
    if settings.tls_client_ca:
        who = f"robots with certificates of {settings.tls_client_ca}"
    root = settings.root
    console.print(
        f"serving {who} at {service.url}: "
        f"experience into {settings.objects or root / STORE}, policies from {root / POLICIES}",
        markup=False,
    )
    service.run()
    return 0


def _allow_open_files(wanted: int) -> None:
    """Let this process open as many files as its connections may need, where the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
