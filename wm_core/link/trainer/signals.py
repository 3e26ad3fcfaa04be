"""Lets an HTTP server end on a signal as a service should: without a failure.

uvicorn raises the signal again once it has ended, so that the process would end with -15 instead
of 0, and whoever watches it would take that for a failure.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

import uvicorn


class SignalledServer(uvicorn.Server):
    """Is a uvicorn server that SIGINT and SIGTERM end; signals are left alone in other threads."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on SIGINT and SIGTERM without a failure."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
