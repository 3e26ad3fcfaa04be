"""Settings of ``wm ui``, the page in a process of its own."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from wm_core.contract.frozen import Frozen, ranged


class PageSettings(Frozen):
    """Show a run on one page that updates itself: robots, returns, dreams, losses, policies.

    Open the address that is printed in a browser.  The page reads the run folder and asks the
    trainer's service what its robots say; it changes nothing, unless --allow-rollback is given.
    It is a process of its own: `wm serve --ui` shows the same page from within the service.
    """

    root: Path = Field(description="Run folder that is shown, the --root of `wm serve`.")
    trainer: str = Field(
        "",
        description="Address of the service whose robots are shown. Empty: the one that "
        "serves the run folder on this machine, whenever there is one.",
    )
    token_file: Path | None = Field(
        None,
        description="File with the token that the service is asked with, one that may look; None: "
        "no token.",
    )
    trainer_ca: Path | None = Field(
        None,
        description="PEM file of the authority of the service's certificate; None: known ones.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; others need --tokens.")
    port: int = ranged(8770, 0, 65535, "TCP port to listen on; 0 picks a free one.")
    tokens: Path | None = Field(
        None,
        description="File of `wm robot add`, as that of `wm serve`: who shows a token made with "
        "--may-look may look. None: this machine only.",
    )
    tls_cert: Path | None = Field(
        None, description="PEM file of the page's certificate; None speaks plain HTTP."
    )
    tls_key: Path | None = Field(
        None, description="PEM file of its private key; None where --tls-cert has it too."
    )
    insecure: bool = Field(False, description="Listen to other machines without TLS.")
    allow_rollback: bool = Field(
        False,
        description="Let people bring back the policy before the current one in two clicks; with "
        "--tokens only who shows the token of `operator`.",
    )
