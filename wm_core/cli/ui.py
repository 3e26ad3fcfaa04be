"""``wm ui``: show a run, its robots and its policies on one page that updates itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from rich.console import Console
from rich.logging import RichHandler

from wm_core.cli.settings import parse
from wm_core.page.server import PageServer
from wm_core.page.settings import PageSettings


def main(argv: Sequence[str]) -> int:
    """Run the verb; 0 after SIGINT or SIGTERM."""
    settings = parse(PageSettings, argv, verb="ui")
    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    server = PageServer(settings)
    console = Console(highlight=False, soft_wrap=True)
    if not settings.root.is_dir():
        console.print(f"{settings.root} is not there yet; the page waits for it", markup=False)
    console.print(f"open {server.url} in a browser; Ctrl-C ends it", markup=False)
    server.run()
    return 0
