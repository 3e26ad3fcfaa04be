"""``wm sim-actor``: play a task in simulation anywhere, and feed a trainer as a robot does."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Sequence

from wm_core.cli.settings import parse
from wm_core.library.actor_engines import play_actors
from wm_core.library.sim_actor import SimActorReport, SimActorSettings

LINE_EVERY_S = 10.0  #: between two lines of progress


def main(argv: Sequence[str]) -> int:
    """Run the verb; 0 after SIGINT or SIGTERM too, once what was collected is sent."""
    settings = parse(SimActorSettings, argv, verb="sim-actor")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    stop, line_s = threading.Event(), -LINE_EVERY_S

    def on_signal(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    def show(report: SimActorReport) -> None:
        nonlocal line_s
        if not settings.quiet and time.monotonic() - line_s >= LINE_EVERY_S:
            line_s = time.monotonic()
            sys.stderr.write(f"{report.sentence()}\n")

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        sys.stdout.write(f"{play_actors(settings, stop, on_report=show).sentence()}\n")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
