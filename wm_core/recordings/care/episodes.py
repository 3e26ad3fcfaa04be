"""Finds the episodes of a store that people ask for, by what they say and by their names.

The name of an episode is the beginning of its session and its number in it, such as
``3fa94c01.12``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_core.contract.errors import ChunkRefused, StoreError, WmError, nearest
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.format.front import ChunkFront, read_front
from wm_core.store.episodes import SessionEpisodes, StoredEpisode, kept_of_session, pieces_of
from wm_core.store.ledger import Ledger

log = logging.getLogger(__name__)


def episode_facts(episode: StoredEpisode) -> dict[str, Any]:
    """Give what is known of an episode as plain values."""
    return {
        "episode": episode.name, "robot": episode.robot, "session": episode.session,
        "number": episode.number, "task": episode.task, "start_ns": episode.start_ns,
        "first_step": episode.first_step, "steps": episode.steps, "seconds": episode.seconds,
        "return": episode.total, "whole": episode.is_whole, "end": episode.end,
        "interventions": episode.interventions, "invalid": episode.invalid,
        "policy_versions": {str(v): n for v, n in sorted(episode.versions.items())},
    }  # fmt: skip


@dataclass(frozen=True)
class EpisodeFilter:
    """Says which episodes are wanted; each that is given has to hold."""

    robot: str = ""
    session: str = ""  #: or its beginning
    task: str = ""  #: a part of its name
    since_ns: int | None = None  #: stamp of the first step, at least
    until_ns: int | None = None  #: ... and below
    min_return: float | None = None
    max_return: float | None = None
    min_steps: int = 0
    version: int | None = None  #: of a policy that acted in it
    interventions: bool = False  #: those with one
    terminal: bool = False  #: those that ended for good

    def takes(self, episode: StoredEpisode) -> bool:
        """Tell whether ``episode`` is wanted."""
        low, high = self.min_return, self.max_return
        return (
            self.robot in ("", episode.robot)
            and episode.session.startswith(self.session)
            and self.task in episode.task
            and (self.since_ns is None or episode.start_ns >= self.since_ns)
            and (self.until_ns is None or episode.start_ns < self.until_ns)
            and (low is None or episode.total >= low)
            and (high is None or episode.total <= high)
            and episode.steps >= self.min_steps
            and (self.version is None or self.version in episode.versions)
            and (episode.interventions > 0 or not self.interventions)
            and (episode.end == "terminal" or not self.terminal)
        )

    def check(self, ledger: Ledger, root: Path) -> None:
        """Raise ``StoreError`` where a robot or session is named that the store does not have."""
        sessions = ledger.sessions()
        robots = {robot for robot, _ in sessions}
        if self.robot and self.robot not in robots:
            raise StoreError(nearest(self.robot, robots, what=f"robot in {root}"))
        names = {session for _, session in sessions}
        if self.session and not any(name.startswith(self.session) for name in names):
            raise StoreError(nearest(self.session, names, what=f"session in {root}"))


def stored_episodes(
    root: Path,
    ledger: Ledger,
    wanted: EpisodeFilter = EpisodeFilter(),
    *,
    left_out: Counter[str] | None = None,
) -> Iterator[StoredEpisode]:
    """Walk the episodes of the store ``root``, session by session in order of arrival.

    Args:
        root: the store's folder.
        ledger: of that store.
        wanted: only such episodes come.
        left_out: receives the chunks that could not be read, by reason.
    """
    wanted.check(ledger, root)
    left_out = Counter() if left_out is None else left_out
    fronts = _Fronts(root)
    for robot, session in ledger.sessions():
        if wanted.robot not in ("", robot) or not session.startswith(wanted.session):
            continue
        joined = SessionEpisodes(robot, session)
        for row in kept_of_session(ledger, robot, session):
            try:
                joined.add(row, pieces_of(root, row))
            except (OSError, ValueError, WmError) as error:
                joined.add(row, [])
                left_out["gone" if isinstance(error, FileNotFoundError) else "damaged"] += 1
                log.warning("chunk %s is left out: %s", tuple(row.key), error)
        for episode in joined.episodes():
            fronts.describe(episode)
            if wanted.takes(episode):
                yield episode


class _Fronts:
    """Says of episodes what indices do not: their task, and when they began."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._last: tuple[ChunkKey, ChunkFront] | None = None

    def describe(self, episode: StoredEpisode) -> None:
        """Fill in ``task`` and ``start_ns``, as far as the first chunk can be read."""
        key = ChunkKey(episode.robot, episode.session, episode.first_seq)
        try:
            if self._last is None or self._last[0] != key:
                self._last = key, read_front(chunk_path(self._root, key))
            meta, times = self._last[1].meta, self._last[1].log_time
            episode.task = meta.task
            episode.start_ns = int(times[episode.first_step - meta.first_step])
        except (OSError, ChunkRefused, IndexError) as error:
            log.warning("chunk %s does not say its times: %s", tuple(key), error)


def find_episode(root: Path, ledger: Ledger, name: str) -> StoredEpisode:
    """Find the episode called ``name``: as listed, ``last``, ``best`` or ``worst``.

    Raises:
        StoreError: where there is none of that name (naming the nearest), or more than one.
    """
    session, dot, number = name.rpartition(".")
    if name in ("last", "best", "worst"):
        return _outstanding(root, ledger, name)
    found = []
    if dot and number.isdecimal() and session:
        sessions = {s for _, s in ledger.sessions()}
        if any(s.startswith(session) for s in sessions):
            candidates = stored_episodes(root, ledger, EpisodeFilter(session=session))
            found = [episode for episode in candidates if episode.number == int(number)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{e.session}.{e.number}" for e in found[:3])
        raise StoreError(f"episode {name!r} is one of several: {names}; write more of it")
    known = [episode.name for episode in stored_episodes(root, ledger)]
    if not known:
        raise StoreError(f"{root} holds no episode yet")
    raise StoreError(nearest(name, [*known, "last", "best", "worst"], what=f"episode in {root}"))


def _outstanding(root: Path, ledger: Ledger, which: str) -> StoredEpisode:
    best: StoredEpisode | None = None
    for episode in stored_episodes(root, ledger):
        if (
            best is None
            or (which == "last" and episode.start_ns >= best.start_ns)
            or (which == "best" and episode.total > best.total)
            or (which == "worst" and episode.total < best.total)
        ):
            best = episode
    if best is None:
        raise StoreError(f"{root} holds no episode yet")
    return best
