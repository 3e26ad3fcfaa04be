"""Runs a thread of the robot that talks to the trainer until it is closed, whatever fails."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable

from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import (
    FAILURES,
    BandwidthCap,
    ConnectionSettings,
    TrainerClient,
)

log = logging.getLogger(__name__)

_BETWEEN_LINES_S = 1.0  # of the log, however many chunks fail, each in its own way


class Worker:
    """Repeats ``_work`` in a thread; after a failure it waits, longer each time.

    A subclass defines ``_work`` and calls ``_start`` at the end of its constructor.

    Args:
        name: of the thread, in the log.
        counted: names of the counters.
        url: of the trainer's service, such as ``https://trainer:8765``.
        token: the robot's token; None where the service is on the same machine without one.
        settings: deadlines of requests, and waits after failures.
        access: certificates and proxy; None for those of the system.
        cap: bounds the bytes per second that are sent; None: no bound.
    """

    def __init__(
        self,
        name: str,
        counted: Iterable[str],
        url: str,
        token: str | None,
        settings: ConnectionSettings,
        *,
        access: AccessSettings | None = None,
        cap: BandwidthCap | None = None,
    ) -> None:
        self._client = TrainerClient(url, token=token, settings=settings, access=access, cap=cap)
        self._backoff = Backoff(settings.backoff_first_s, settings.backoff_most_s)
        self._counters = Counters(name, counted)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _start(self) -> None:
        self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """End the thread and its open request; a second call does nothing."""
        self._stop.set()
        self._client.abort()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        """Do one round of work; may raise."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._work()
            except FAILURES as error:
                self._retry_later(f"{type(error).__name__}: {error}")
            except Exception as error:  # a mistake of ours must not end the thread
                log.exception("%s goes on after a fault", self._thread.name)
                self._retry_later(f"{type(error).__name__}: {error}")
        self._client.close()

    def _retry_later(self, error: str, at_least_s: float = 0.0) -> None:
        if self._stop.is_set():  # ``close`` cut the request off: no fault
            return
        self._counters.count("retries")
        self._counters.set_error(error)
        self._stop.wait(self._backoff.next_s(at_least_s))


class Backoff:
    """Computes waits that double up to a bound, each drawn from the upper half of its range.

    So the robots of a fleet do not retry at the same time.

    Args:
        first_s: the first wait.
        most_s: the longest wait.
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self._first_s, self._most_s = first_s, most_s
        self._wait_s = first_s

    def next_s(self, at_least_s: float = 0.0) -> float:
        """Give the seconds to wait now; they grow with each call."""
        wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, self._most_s)
        return max(at_least_s, wait_s * random.uniform(0.5, 1.0))

    def reset(self) -> None:
        """Start again from the first wait, after a success."""
        self._wait_s = self._first_s


class Counters:
    """Holds the counters and the last error of a thread, for other threads to read.

    Args:
        what: names the thread in the log.
        names: of the counters, which start at 0.
    """

    def __init__(self, what: str, names: Iterable[str]) -> None:
        self._what, self._lock = what, threading.Lock()
        self._counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._error = ""
        self._quiet_s = 0.0  # time.monotonic() until which no error is logged

    def count(self, name: str, n: int = 1) -> None:
        """Add ``n`` to one counter."""
        with self._lock:
            self._counts[name] += n

    def set_error(self, error: str) -> None:
        """Keep the last error, empty for none; a repeated one, or many at once, is logged once."""
        now_s = time.monotonic()
        with self._lock:
            before, self._error = self._error, error
            is_news = bool(error) and error != before and now_s >= self._quiet_s
            if is_news:
                self._quiet_s = now_s + _BETWEEN_LINES_S
        if is_news:
            log.warning("%s: %s", self._what, error)

    def read(self) -> dict[str, int | str]:
        """Give every counter and the last error."""
        with self._lock:
            return {**self._counts, "last_error": self._error}
