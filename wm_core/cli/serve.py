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
from wm_core.page.mounted import mount


class Serve(ServeSettings):
    """Run the trainer's service: it receives experience from robots and sends them policies."""

    new_token: str = Field(
        "", description="Robot to make a token for: adds its hash to --tokens, prints it and ends"
    )
    ui: bool = Field(
        False, description="Show the run at /ui/ on a page for people, as `wm ui` does."
    )
    allow_rollback: bool = Field(
        False,
        description="Let people on that page bring back the policy before the current one; with "
        "--tokens only who shows the token of `operator`.",
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
    if settings.allow_rollback and not settings.ui:
        raise SettingsError("--allow-rollback is of the page: it needs --ui")
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
    if settings.ui:
        shown = mount(service, allow_rollback=settings.allow_rollback)
        console.print(f"open {shown} in a browser to watch", markup=False)
    service.run()
    return 0


def _allow_open_files(wanted: int) -> None:
    """Let this process open as many files as its connections may need, where the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
