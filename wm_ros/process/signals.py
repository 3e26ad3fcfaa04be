"""Remembers the signals that end a process, from its first moment on, so that it ends in order.

Imports take a second or more; a signal that comes meanwhile must not kill the process.
"""

from __future__ import annotations

import signal

_ALWAYS = (signal.SIGINT, signal.SIGTERM)  # launch sends these
#: the terminal is gone, as when an ssh connection drops; a key of the terminal
_UNLESS_IGNORED = (signal.SIGHUP, signal.SIGQUIT)
_got: list[int] = []


def remember() -> list[int]:
    """Keep signals from ending this process; returns the list that they are put into.

    They are SIGINT, SIGTERM, and SIGHUP and SIGQUIT where those are not ignored, as SIGHUP is
    under nohup.  May be called again: it is one list for the whole process.
    """
    for number in (*_ALWAYS, *_UNLESS_IGNORED):
        if number in _ALWAYS or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda got, frame: _got.append(got))
    return _got
