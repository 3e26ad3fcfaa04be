"""Shows the page from within the trainer's service, to whom that serves."""

from __future__ import annotations

from collections.abc import Callable

from wm_core.contract.files import json_object
from wm_core.link.trainer.service import Service
from wm_core.page.application import PageApplication
from wm_core.page.board import Board
from wm_core.page.hearing import RobotsHeard, heard_in
from wm_core.page.run_reader import RunReader
from wm_core.page.viewers import Viewers


def mount(service: Service, *, allow_rollback: bool = False) -> str:
    """Add the page to a service that does not run yet; returns the page's address.

    Args:
        service: whose robots and run folder are shown, and whose tokens let people look.
        allow_rollback: whether people may bring back the policy before the current one.
    """
    application = service.application
    live, access = application.live_routes.board, application.access

    def listen() -> Callable[[], RobotsHeard]:
        said = live.read()
        return lambda: heard_in(json_object(said))

    reader = RunReader(service.settings.root)
    board = Board(reader, listen)
    page = PageApplication(
        board,
        Viewers(access.tokens, certificates=access.certificates),
        allow_rollback=allow_rollback,
        secure=service.url.startswith("https:"),
    )
    application.app.router.routes.extend(page.routes)
    application.at_drain.append(board.close)
    return f"{service.url}/ui/"
