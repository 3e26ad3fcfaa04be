"""Decides which chunk is sent next, so that none holds up the others.

A chunk that failed waits by itself, longer each time, while the others go on.  After a failure the
next ones are taken from the other end of what waits, so that a long row of chunks that cannot be
sent does not keep the newest from the trainer.  Of many robots' sessions in one spool, those that
the trainer denies are held back together.
"""

from __future__ import annotations

import heapq
import random
import threading
from bisect import insort
from collections import deque
from typing import Literal

from wm_core.link.robot.journal import Waiting

SendOrder = Literal["oldest", "newest"]
_STUCK = 3  #: failures after which a chunk counts as stuck
_EVERY = 16  #: so many chunks go between two tries of those that may well fail


class _Session:
    """Holds the chunks of a session that have not failed, by number."""

    __slots__ = ("created_ns", "fresh", "key")

    def __init__(self, chunk: Waiting) -> None:
        self.created_ns = chunk.created_ns
        self.key = (chunk.created_ns, chunk.key.robot, chunk.key.session)
        self.fresh: deque[Waiting] = deque()

    def __lt__(self, other: _Session) -> bool:
        return self.key < other.key


class SendPlan:
    """Orders the chunks that wait; safe to share between threads.

    Args:
        order: whether the oldest or the newest chunk goes first.
        first_s: the first wait of a chunk that failed.
        most_s: its longest wait.
    """

    def __init__(self, order: SendOrder, first_s: float, most_s: float) -> None:
        self._wanted = order == "newest"
        self._first_s, self._most_s = first_s, most_s
        self._lock = threading.Lock()
        self._known: dict[str, Waiting] = {}  # by path
        self._bytes = 0
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._sorted: list[_Session] = []  # of which something is fresh
        self._late: list[tuple[float, str]] = []  # heap of (when it may go, path)
        self._failures: dict[str, int] = {}
        self._flying: dict[str, bool] = {}  # path -> taken from the newest end
        self._newest_end = self._wanted  # from which chunks are taken now
        self._left: set[str] = set()  # done, but their files could not leave
        self._held: dict[str, float] = {}  # robot -> until when its chunks are held back
        self._turn = 0

    def update(self, came: list[Waiting], gone: list[Waiting]) -> None:
        """Take note of chunks that were sealed, and of chunks that left the spool by others."""
        with self._lock:
            for chunk in gone:
                self._left.discard(str(chunk.path))
                self._forget(chunk)
            for chunk in came:
                path = str(chunk.path)
                if path not in self._known and path not in self._left:
                    self._known[path] = chunk
                    self._bytes += chunk.bytes
                    self._add_fresh(chunk)

    def take(self, now_s: float) -> Waiting | None:
        """Choose the next chunk to send at time.monotonic() ``now_s``; None where none may go."""
        with self._lock:
            self._turn += 1
            phase = self._turn % _EVERY
            newest = self._wanted if phase == 0 else self._newest_end
            chunk = self._take_late(now_s) if phase == _EVERY // 2 else None
            chunk = chunk or self._take_fresh(now_s, newest) or self._take_late(now_s)
            if chunk is not None:
                self._flying[str(chunk.path)] = newest
            return chunk

    def done(self, chunk: Waiting, *, stays: bool = False) -> None:
        """Forget a chunk that needs no more sending; ``stays``: its file could not be removed."""
        with self._lock:
            if self._flying.pop(str(chunk.path), None) == self._wanted:
                self._newest_end = self._wanted
            if stays:
                self._left.add(str(chunk.path))
            self._forget(chunk)

    def put_back(self, chunk: Waiting) -> None:
        """Give a chunk its place again: that it was not sent says nothing about it."""
        with self._lock:
            path = str(chunk.path)
            self._flying.pop(path, None)
            if path in self._known:
                self._add_fresh(chunk)

    def failed(self, chunk: Waiting, now_s: float, at_least_s: float = 0.0) -> None:
        """Let a chunk wait by itself, longer after each failure."""
        with self._lock:
            path = str(chunk.path)
            self._newest_end = not self._flying.pop(path, self._newest_end)
            if path not in self._known:
                return
            times = self._failures[path] = self._failures.get(path, 0) + 1
            wait_s = min(self._first_s * 4.0 ** min(times - 1, 20), self._most_s)
            wait_s = max(at_least_s, wait_s * random.uniform(0.5, 1.0))
            heapq.heappush(self._late, (now_s + wait_s, path))

    def hold(self, robot: str, until_s: float) -> None:
        """Send nothing of ``robot`` until then."""
        with self._lock:
            self._held[robot] = until_s

    def wait_s(self, now_s: float) -> float:
        """Give the seconds until a chunk may go, as far as is known; infinite where none waits."""
        with self._lock:
            found = [self._late[0][0]] if self._late else []
            found.extend(self._held.get(session.key[1], now_s) for session in self._sorted)
            return max(0.0, min(found, default=float("inf")) - now_s)

    def failures(self, chunk: Waiting) -> int:
        """Count how often a chunk has failed."""
        with self._lock:
            return self._failures.get(str(chunk.path), 0)

    def counters(self) -> dict[str, int]:
        """Count what waits, and what has failed so often that somebody should look."""
        with self._lock:
            stuck = sum(times >= _STUCK for times in self._failures.values())
            return {
                "pending_chunks": len(self._known),
                "pending_bytes": self._bytes,
                "stuck_chunks": stuck,
            }

    def oldest_s(self) -> float | None:
        """Give the time.time() at which the first chunk of the oldest session was sealed."""
        with self._lock:
            fresh = (session.fresh[0].sealed_s for session in self._sorted[:1])
            late = (self._known[p].sealed_s for p in self._failures if p in self._known)
            flying = (self._known[p].sealed_s for p in self._flying if p in self._known)
            return min((*fresh, *late, *flying), default=None)

    # ------------------------------------------------------------------ under the lock

    def _add_fresh(self, chunk: Waiting) -> None:
        name = (chunk.key.robot, chunk.key.session)
        session = self._sessions.get(name)
        if session is None:
            session = self._sessions[name] = _Session(chunk)
        if not session.fresh:
            insort(self._sorted, session)
        if not session.fresh or session.fresh[-1].key.seq < chunk.key.seq:
            session.fresh.append(chunk)
        elif chunk.key.seq < session.fresh[0].key.seq:
            session.fresh.appendleft(chunk)
        else:
            insort(session.fresh, chunk, key=lambda other: other.key.seq)  # type: ignore[type-var]

    def _take_fresh(self, now_s: float, newest: bool) -> Waiting | None:
        for session in list(reversed(self._sorted) if newest else self._sorted):
            if self._held.get(session.key[1], 0.0) > now_s:
                continue
            while session.fresh:
                chunk = session.fresh.pop() if newest else session.fresh.popleft()
                if str(chunk.path) in self._known:
                    self._drop_if_empty(session)
                    return chunk
            self._drop_if_empty(session)
        return None

    def _drop_if_empty(self, session: _Session) -> None:
        if not session.fresh:
            self._sorted.remove(session)
            self._sessions.pop((session.key[1], session.key[2]), None)

    def _take_late(self, now_s: float) -> Waiting | None:
        passed: list[tuple[float, str]] = []
        found = None
        while self._late and self._late[0][0] <= now_s and found is None:
            path = heapq.heappop(self._late)[1]
            chunk = self._known.get(path)
            if chunk is None or path in self._flying:
                continue
            held_s = self._held.get(chunk.key.robot, 0.0)
            if held_s > now_s:
                passed.append((held_s, path))
            else:
                found = chunk
        for entry in passed:
            heapq.heappush(self._late, entry)
        return found

    def _forget(self, chunk: Waiting) -> None:
        path = str(chunk.path)
        if self._known.pop(path, None) is not None:
            self._bytes -= chunk.bytes
        self._failures.pop(path, None)
