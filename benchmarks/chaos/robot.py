"""A robot of the campaign: the real spool and the real uploader, fed with numbered steps.

It runs until SIGTERM, which it takes as the order to seal, to upload everything and to end; all
other signals are faults.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

from pydantic import BaseModel

from benchmarks.chaos.clock import WallClock
from benchmarks.chaos.steps import SPEC, Progress, ProgressFile, make_step
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.journal import sessions_in
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.spool_disk import EARLIER
from wm_core.link.robot.uploader import Uploader, UploaderSettings


class RobotOrders(BaseModel):
    """Says what one robot of the campaign does."""

    name: str
    spool: Path
    state: Path  #: folder for progress and clock, on a disk that has no faults
    url: str
    token: str
    backlog: int = 200  #: chunks in the spool above which it waits; 0 never waits
    spool_bytes: int = 2**40
    seal_steps: int = 4
    pause_s: float = 0.0  #: between steps


def _is_own_drop(name: str) -> bool:
    """Whether a counter of the spool counts dropped steps of this session."""
    return name.startswith("dropped_") and not name.startswith(f"dropped_{EARLIER}")


def run(orders: RobotOrders) -> bool:
    """Live until SIGTERM; returns whether the spool was empty in the end."""
    WallClock(orders.state / "clock").install()
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    (orders.state / f"{orders.name}.ready").write_text(str(os.getpid()))
    session = uuid.uuid4().hex
    progress = ProgressFile(orders.state / f"{orders.name}.{session}.progress")
    spool = Spool(
        orders.spool,
        robot=orders.name,
        task="chaos",
        spec=SPEC,
        session=session,
        settings=SpoolSettings(
            seal_steps=orders.seal_steps, seal_s=1.0, max_bytes=orders.spool_bytes, queue_steps=512
        ),
    )
    uploader = Uploader(
        orders.spool,
        url=orders.url,
        token=orders.token,
        access=AccessSettings(allow_plain_http=True),
        settings=UploaderSettings(
            connect_s=2.0,
            read_s=3.0,
            backoff_first_s=0.05,
            backoff_most_s=0.5,
            denied_s=0.3,
            keep_bytes=2**40,
            refused_bytes=2**40,
        ),
    )
    number = 0
    while not ending.is_set():
        counts = spool.counters()
        dropped = sum(n for name, n in counts.items() if _is_own_drop(name))
        progress.write(Progress(number, counts["steps_sealed"], dropped))
        full = orders.backlog and (
            counts["queue_steps"] > 256 or uploader.counters()["pending_chunks"] > orders.backlog
        )
        if full:
            time.sleep(0.02)
            continue
        for _ in range(16):  # `put` counts after the step is noted: nothing is put unnoticed
            progress.write(Progress(number + 1, counts["steps_sealed"], dropped))
            spool.put(make_step(orders.name, session, number))
            number += 1
        time.sleep(orders.pause_s)
    spool.close(60.0)
    drained = uploader.drain(150.0)
    uploader.close()
    if not drained:
        left = [c for session in sessions_in(orders.spool) for c in session.waiting()]
        print("not drained:", [str(c.path) for c in left][:5], len(left), uploader.counters())
    return drained


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    sys.exit(not run(RobotOrders.model_validate_json(sys.argv[1])))
