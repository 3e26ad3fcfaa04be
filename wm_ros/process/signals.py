"""Remembers SIGINT and SIGTERM from the first moment of a process on, so that it ends in order.

Imports take a second or more; a signal that comes meanwhile must not kill the process.
"""

from __future__ import annotations

import signal

_got: list[int] = []


def remember() -> list[int]:
    """Keep SIGINT and SIGTERM from ending this process; returns the list that they are put into.

    May be called again: it is one list for the whole process.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, frame: _got.append(got))
    return _got
