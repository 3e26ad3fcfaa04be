"""The folder ``RUN/live``, through which a learner shows a page what it is doing.

The page touches a file there as long as somebody looks; only then does the learner write its
newest figures.  Neither needs to know where the other runs, and nothing of it needs torch.
"""

from __future__ import annotations

import time
from pathlib import Path

FOLDER = "live"
WATCHED = "watched"  #: touched by who looks
LEARNER, DREAM = "learner.json", "dream.json"
STRIPS = ("truth", "imagined", "error")  #: film strips beside the dream, see ``strip_name``
WATCHED_S = 10.0  #: for which one touch counts


def live_of(run: Path) -> Path:
    """Give the folder of the live figures of ``run``."""
    return run / FOLDER


def strip_name(strip: str) -> str:
    """Name the PNG of one of ``STRIPS``."""
    return f"dream_{strip}.png"


def touch(run: Path) -> None:
    """Say that somebody looks at ``run``.

    Raises:
        OSError: where the folder cannot be written to.
    """
    live_of(run).mkdir(exist_ok=True)
    (live_of(run) / WATCHED).touch()


def is_watched(run: Path) -> bool:
    """Whether somebody has looked at ``run`` within ``WATCHED_S``."""
    try:
        touched_s = (live_of(run) / WATCHED).stat().st_mtime
    except OSError:
        return False
    return abs(time.time() - touched_s) <= WATCHED_S  # a clock that was set back says no
