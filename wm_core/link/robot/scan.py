"""Finds what waits in a spool without looking at everything each time.

A folder is read again only where its time of change is another one; sessions in which nothing has
happened for a minute are looked at in turn, a few each time.  So a robot with thousands of old
sessions pays for the few that are alive.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import ChunkKey
from wm_core.link.robot.journal import SpoolSession, Waiting

log = logging.getLogger(__name__)

_SETTLED_S = 2.0  #: the clock of a folder is coarse: one that changed just now is read once more
_HOT_S = 60.0
_COLD_LOOKS = 32  #: quiet sessions that are looked at each time
_SUFFIX = ".mcap"
_UNREAD = -1


@dataclass(slots=True)
class _Folder:
    """Remembers one folder as it was when it was last read."""

    path: str
    changed_ns: int = _UNREAD
    unsettled_s: float = 0.0  #: time.monotonic() until which it is read each time
    hot_s: float = 0.0  #: until which it is looked at each time

    def is_news(self, now_s: float) -> bool:
        """Tell whether the folder has to be read; raises ``OSError`` where it is gone."""
        changed_ns = os.stat(self.path).st_mtime_ns
        if changed_ns != self.changed_ns:
            self.hot_s = now_s + (_SETTLED_S if self.changed_ns == _UNREAD else _HOT_S)
            self.changed_ns, self.unsettled_s = changed_ns, now_s + _SETTLED_S
            return True
        return now_s < self.unsettled_s


@dataclass(slots=True)
class _Session(_Folder):
    robot: str = ""
    name: str = ""
    created_ns: int = 0
    waiting: dict[str, Waiting] = field(default_factory=dict)  #: by file name
    problem: str = ""

    def is_hot(self, now_s: float) -> bool:
        unread = self.changed_ns == _UNREAD and not self.problem
        return unread or bool(self.waiting) or now_s < self.hot_s


@dataclass(slots=True)
class _Robot(_Folder):
    sessions: dict[str, _Session] = field(default_factory=dict)


class News:
    """Lists what one look found: chunks that came, and chunks that are gone."""

    def __init__(self) -> None:
        self.came: list[Waiting] = []
        self.gone: list[Waiting] = []


class SpoolScan:
    """Keeps track of the chunks in a spool; one thread at a time may use it.

    Args:
        spool: the spool folder, with all its robots and sessions.
    """

    def __init__(self, spool: Path) -> None:
        self._root = _Folder(str(spool))
        self._robots: dict[str, _Robot] = {}
        self._turn = 0
        self.stats = 0  #: folders that were looked at so far

    def look(self, *, everywhere: bool = False) -> News:
        """Find what has changed since the last look.

        Args:
            everywhere: look at quiet sessions too, all of them.
        """
        news, now_s = News(), time.monotonic()
        self._find_robots(now_s, news)
        cold: list[_Session] = []
        for robot in list(self._robots.values()):
            self._find_sessions(robot, now_s, news)
            for session in list(robot.sessions.values()):
                if everywhere or session.is_hot(now_s):
                    self._read(session, robot, now_s, news)
                else:
                    cold.append(session)
        for session in self._next_of(cold):
            self._read(session, self._robots[session.robot], now_s, news)
        return news

    def forget(self, chunk: Waiting) -> None:
        """Take a chunk that was dealt with for one that was never seen.

        Its file is gone, unless somebody has put it back meanwhile: then the next look finds it.
        """
        robot = self._robots.get(chunk.key.robot)
        session = robot.sessions.get(chunk.key.session) if robot else None
        if session is not None and session.waiting.pop(chunk.path.name, None) is not None:
            session.changed_ns = 0  # to be read again

    def problems(self) -> Iterator[str]:
        """Say which sessions cannot be read, and why."""
        for robot in self._robots.values():
            yield from (s.problem for s in robot.sessions.values() if s.problem)

    def _next_of(self, cold: list[_Session]) -> list[_Session]:
        if not cold:
            return []
        start, self._turn = self._turn % len(cold), self._turn + _COLD_LOOKS
        return (cold[start:] + cold[:start])[:_COLD_LOOKS]

    def _find_robots(self, now_s: float, news: News) -> None:
        names = self._names_if_news(self._root, now_s)
        if names is None:
            return
        for name in self._robots.keys() - names:
            for session in self._robots.pop(name).sessions.values():
                news.gone.extend(session.waiting.values())
        for name in sorted(names - self._robots.keys()):
            path = os.path.join(self._root.path, name)
            if _is_key(name, "0" * 32) and os.path.isdir(path):
                self._robots[name] = _Robot(path)

    def _find_sessions(self, robot: _Robot, now_s: float, news: News) -> None:
        names = self._names_if_news(robot, now_s)
        if names is None:
            return
        for name in robot.sessions.keys() - names:
            news.gone.extend(robot.sessions.pop(name).waiting.values())
        for name in sorted(names - robot.sessions.keys()):
            path, robot_name = os.path.join(robot.path, name), os.path.basename(robot.path)
            if _is_key(robot_name, name) and os.path.isdir(path):
                robot.sessions[name] = _Session(path, robot=robot_name, name=name)

    def _names_if_news(self, folder: _Folder, now_s: float) -> set[str] | None:
        """Name what is in a folder that has changed; None where it has not."""
        self.stats += 1
        try:
            return set(os.listdir(folder.path)) if folder.is_news(now_s) else None
        except OSError:  # not made yet, or gone: the folder above knows
            folder.changed_ns = _UNREAD
            return set()

    def _read(self, session: _Session, robot: _Robot, now_s: float, news: News) -> None:
        """Compare a session's files with those that were there before."""
        self.stats += 1
        try:
            if not session.is_news(now_s):
                return
            names = {name for name in os.listdir(session.path) if _is_chunk(name)}
        except FileNotFoundError:
            robot.sessions.pop(session.name, None)
            news.gone.extend(session.waiting.values())
            return
        except OSError as error:
            session.changed_ns = _UNREAD  # looked at again in its turn
            if not session.problem:
                session.problem = f"{session.path} cannot be read: {error}"
                log.warning("%s; it is left out until this is mended", session.problem)
            return
        session.problem = ""
        for name in session.waiting.keys() - names:
            news.gone.append(session.waiting.pop(name))
        for name in sorted(names - session.waiting.keys()):
            chunk = self._stat(session, name)
            if chunk is not None:
                session.waiting[name] = chunk
                news.came.append(chunk)

    def _stat(self, session: _Session, name: str) -> Waiting | None:
        path = Path(session.path, name)
        try:
            stat = path.stat()
        except OSError:  # evicted meanwhile
            return None
        if not session.created_ns:
            journal = SpoolSession(Path(session.path)).journal()
            session.created_ns = journal.created_ns if journal else 0
        key = ChunkKey(session.robot, session.name, int(name[: -len(_SUFFIX)]))
        return Waiting(session.created_ns, key, path, stat.st_size, stat.st_mtime)


def _is_chunk(name: str) -> bool:
    stem = name[: -len(_SUFFIX)]
    return name.endswith(_SUFFIX) and stem.isdecimal() and stem.isascii() and len(stem) <= 10


def _is_key(robot: str, session: str) -> bool:
    try:
        ChunkKey(robot, session, 0).check()
    except ChunkRefused:
        return False
    return True
