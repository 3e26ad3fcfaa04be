"""Uploads sealed chunks to the trainer until each is acknowledged, over a few connections.

An acknowledgement repeats the chunk's hash; only then is the file deleted (or kept as a black
box).  A chunk that the trainer itself refuses for good is set aside with the reason.  One that
cannot be read or sent waits by itself while the others go on.  Without a trainer the uploader
keeps trying, ever more slowly, and the spool keeps its bound.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from pathlib import Path

from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.black_box import BlackBox
from wm_core.link.robot.carrier import Carrier, FolderCarrier, HttpCarrier, folder_trainer
from wm_core.link.robot.client import FAILURES, BandwidthCap, TrainerClient
from wm_core.link.robot.journal import Waiting, read_regular
from wm_core.link.robot.scan import SpoolScan
from wm_core.link.robot.send_plan import SendPlan
from wm_core.link.robot.upload_settings import UploaderSettings
from wm_core.link.robot.verdict import (
    DAMAGED,
    DENIED,
    KNOWN,
    LATER,
    NOT_THE_TRAINER,
    REFUSED,
    STORED,
    Answer,
)
from wm_core.link.robot.worker import Backoff, Counters

log = logging.getLogger(__name__)

_DAMAGED_ATTEMPTS = 3
_LOOK_S = 0.2  #: how often the spool is looked at ...
_LOOK_SHARE = 20  #: ... or once in so many times as a look takes
_LEAST_REST_S = 0.05  #: while another thread tries a way that fails
_TIDY_S = 10.0
_MAX_BYTES = 256 << 20  #: of a chunk's file, before memory is taken for it ...
_GROWTH_BYTES = 16 << 20  #: ... and beyond the size that it had when it was found
_PAGE_WAIT_S = 2.0  #: at most, after a refusal that concerns one request and not the way
_OF_ONE_REQUEST = (400, 404, 409, 411, 413, 414, 415, 422, 431)
_COUNTED = (
    "acked",
    "acked_before",
    "bytes_sent",
    "refused",
    "retries",
    "denied",
    "not_the_trainer",
    "unreadable",
)


class Uploader:
    """Empties a spool folder, with all its sessions and robots, in threads.

    Args:
        spool_folder: the folder that ``Spool`` fills.
        url: of the trainer's service, such as ``https://trainer:8765``, or ``file:///folder``.
        token: the robot's token; None where the service is on the same machine without one.
        settings: deadlines and bounds.
        access: certificates and proxy; None for those of the system.
    """

    def __init__(
        self,
        spool_folder: Path,
        *,
        url: str,
        token: str | None = None,
        settings: UploaderSettings | None = None,
        access: AccessSettings | None = None,
    ) -> None:
        self.settings = s = settings or UploaderSettings()
        folder = Path(spool_folder)
        self._scan, self._looks = SpoolScan(folder), threading.Lock()
        self._plan = SendPlan(s.order, s.backoff_first_s, s.stuck_s)
        self._black_box = BlackBox(
            folder, keep_bytes=s.keep_bytes, keep_s=s.keep_s, refused_bytes=s.refused_bytes
        )
        self._kept = threading.Lock()  # of the black box
        self._left: deque[Waiting] = deque()  # dealt with since the last look
        self._counters = Counters("uploader", _COUNTED)
        self._way = _Way(s.backoff_first_s, s.backoff_most_s)
        self._stop = threading.Event()
        self._look_s = self._tidy_s = 0.0  # time.monotonic() of the next one
        #: what all that is sent to this trainer shares; None: no bound
        self.cap = BandwidthCap(s.bytes_per_s) if s.bytes_per_s else None
        self._carriers: list[Carrier] = []
        for _ in range(s.connections):
            stick = folder_trainer(url)
            if stick is not None:
                self._carriers.append(FolderCarrier(stick))
                break
            client = TrainerClient(url, token=token, settings=s, access=access, cap=self.cap)
            self._carriers.append(HttpCarrier(client))
        self._threads = [
            threading.Thread(
                target=self._run,
                args=(carrier, number),
                name=f"uploader-{number}" if number else "uploader",
                daemon=True,
            )
            for number, carrier in enumerate(self._carriers)
        ]
        for thread in self._threads:
            thread.start()

    def counters(self) -> dict[str, int | float | str]:
        """Give what was sent and acknowledged, what waits and how long, and the last error."""
        oldest_s = self._plan.oldest_s()
        age_s = 0.0 if oldest_s is None else max(0.0, time.time() - oldest_s)
        return {**self._counters.read(), **self._plan.counters(), "oldest_age_s": age_s}

    def drain(self, timeout_s: float) -> bool:
        """Wait until the spool is empty; returns whether that happened in time.

        It does not wait for chunks that may be sent again only later than that.
        """
        deadline_s = time.monotonic() + timeout_s
        self._look(everywhere=True)
        while self._plan.counters()["pending_chunks"]:
            now_s = time.monotonic()
            alive = any(thread.is_alive() for thread in self._threads)
            resting = not self._way.busy and now_s + self._next_s(now_s) > deadline_s
            if now_s > deadline_s or not alive or resting:
                return False
            time.sleep(0.02)
        return True

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads and their open requests; a second call does nothing."""
        self._stop.set()
        self._way.wake()
        for carrier in self._carriers:
            carrier.abort()
        deadline_s = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    # ------------------------------------------------------------------ the threads

    def _run(self, carrier: Carrier, number: int) -> None:
        while not self._stop.is_set():
            try:
                self._round(carrier, number)
            except Exception as error:  # a mistake of ours must not end the thread
                log.exception("the uploader goes on after a fault")
                self._later(f"{type(error).__name__}: {error}")
        carrier.close()

    def _round(self, carrier: Carrier, number: int) -> None:
        """Send one chunk, or wait until there may be one."""
        self._look_now_and_then()
        now_s = time.monotonic()
        if not self._way.enter(now_s):
            self._way.rest(min(_LOOK_S, max(_LEAST_REST_S, self._way.wait_s(now_s))))
            return
        try:
            chunk = self._plan.take(now_s)
            if chunk is not None:
                self._send(carrier, chunk)
        finally:
            self._way.leave()
        if chunk is None:
            # only the first thread looks often: the others are woken by what it finds
            wait_s = min(_LOOK_S, self._plan.wait_s(now_s)) if number == 0 else 1.0
            self._way.rest(wait_s)

    def _next_s(self, now_s: float) -> float:
        return max(self._plan.wait_s(now_s), self._way.wait_s(now_s))

    def _look_now_and_then(self) -> None:
        if time.monotonic() < self._look_s or not self._looks.acquire(blocking=False):
            return
        self._looks.release()
        self._look()

    def _look(self, *, everywhere: bool = False) -> None:
        """See what has come to the spool and what has left it."""
        with self._looks:
            began_s = time.monotonic()
            while self._left:
                self._scan.forget(self._left.popleft())
            news = self._scan.look(everywhere=everywhere)
            self._plan.update(news.came, news.gone)
            took_s = time.monotonic() - began_s
            self._look_s = began_s + max(_LOOK_S, _LOOK_SHARE * took_s)
        if news.came:
            self._way.wake()
        if began_s >= self._tidy_s:
            self._tidy_s = began_s + _TIDY_S
            with self._kept:
                self._black_box.tidy()

    def _send(self, carrier: Carrier, chunk: Waiting) -> None:
        """Send one chunk and act on the answer."""
        try:
            data = read_regular(chunk.path, min(chunk.bytes + _GROWTH_BYTES, _MAX_BYTES))
        except FileNotFoundError:  # the spool evicted it at its bound
            self._plan.done(chunk)
            return
        except OSError as error:
            self._counters.count("unreadable")
            self._counters.set_error(f"{chunk.path} cannot be read: {error}; see who owns it")
            self._plan.failed(chunk, time.monotonic(), self.settings.backoff_most_s)
            return
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            answer = carrier.put(chunk.key, data, sha256)
        except FAILURES as error:
            if carrier.sent_bytes:  # it may have to do with this chunk
                self._counters.count("bytes_sent", carrier.sent_bytes)
                self._plan.failed(chunk, time.monotonic())
            else:
                self._plan.put_back(chunk)
            if not self._stop.is_set():
                self._later(str(error) or type(error).__name__)
            return
        except BaseException:
            self._plan.failed(chunk, time.monotonic())
            raise
        self._counters.count("bytes_sent", carrier.sent_bytes)
        self._act_on(answer, chunk)

    def _act_on(self, answer: Answer, chunk: Waiting) -> None:
        verdict, now_s = answer.verdict, time.monotonic()
        if verdict in (STORED, KNOWN):
            self._acknowledged(chunk, before=verdict == KNOWN)
        elif verdict in REFUSED or self._damaged_again(verdict, chunk):
            self._refused(chunk, answer.words)
        elif verdict == DENIED:
            self._counters.count("denied")
            self._plan.put_back(chunk)
            if answer.status == 403:  # other robots' chunks may still pass
                self._plan.hold(chunk.key.robot, now_s + self.settings.denied_s)
                self._counters.set_error(answer.words)
            else:
                self._later(answer.words, self.settings.denied_s)
        elif verdict in LATER:
            self._plan.put_back(chunk)
            self._later(answer.words, answer.wait_s)
        else:
            self._plan.failed(chunk, now_s)
            if verdict == NOT_THE_TRAINER:
                self._counters.count("not_the_trainer")
            of_one = answer.status in _OF_ONE_REQUEST
            self._later(answer.words, answer.wait_s, _PAGE_WAIT_S if of_one else None)

    def _damaged_again(self, verdict: str, chunk: Waiting) -> bool:
        return verdict == DAMAGED and self._plan.failures(chunk) >= _DAMAGED_ATTEMPTS - 1

    def _later(self, error: str, at_least_s: float = 0.0, most_s: float | None = None) -> None:
        self._counters.count("retries")
        self._counters.set_error(error)
        self._way.failed(time.monotonic(), at_least_s, most_s)

    def _acknowledged(self, chunk: Waiting, *, before: bool) -> None:
        self._way.works()
        with self._kept:
            left = self._black_box.acknowledged(chunk)
        self._counters.count("acked")
        if before:
            self._counters.count("acked_before")
        self._counters.set_error("")
        self._done(chunk, left=left)

    def _refused(self, chunk: Waiting, reason: str) -> None:
        self._way.works()
        with self._kept:
            left = self._black_box.refused(chunk, reason)
        self._counters.count("refused")
        self._counters.set_error(f"chunk {chunk.key.seq} refused, {reason}")
        self._done(chunk, left=left)

    def _done(self, chunk: Waiting, *, left: bool) -> None:
        self._plan.done(chunk, stays=not left)
        if left:  # should its file come back, it is found anew
            self._left.append(chunk)


class _Way:
    """Says whether the way to the trainer may be tried now; shared by the uploader's threads.

    While it fails, one thread at a time tries, at growing intervals.
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        self._changed = threading.Condition()
        self._backoff = Backoff(first_s, most_s)
        self._until_s, self._trying = 0.0, 0
        self.failures = 0  #: in a row

    @property
    def busy(self) -> bool:
        """Tell whether something is on its way."""
        return self._trying > 0

    def enter(self, now_s: float) -> bool:
        """Begin to use the way; False where that must wait."""
        with self._changed:
            if now_s < self._until_s or (self.failures and self._trying):
                return False
            self._trying += 1
            return True

    def leave(self) -> None:
        """End using the way."""
        with self._changed:
            self._trying -= 1

    def wait_s(self, now_s: float) -> float:
        """Give the seconds until the way may be tried again."""
        with self._changed:
            return max(0.0, self._until_s - now_s)

    def failed(self, now_s: float, at_least_s: float, most_s: float | None) -> None:
        """Let everybody wait, longer each time in a row."""
        with self._changed:
            self.failures += 1
            wait_s = self._backoff.next_s(0.0)
            wait_s = wait_s if most_s is None else min(wait_s, most_s)
            self._until_s = max(self._until_s, now_s + max(wait_s, at_least_s))

    def works(self) -> None:
        """Let everybody go on at once."""
        with self._changed:
            self._backoff.reset()
            self.failures, self._until_s = 0, 0.0
            self._changed.notify_all()

    def rest(self, seconds: float) -> None:
        """Wait for so long, or until ``wake``."""
        with self._changed:
            self._changed.wait(max(0.005, seconds))

    def wake(self) -> None:
        """End every ``rest``."""
        with self._changed:
            self._changed.notify_all()
