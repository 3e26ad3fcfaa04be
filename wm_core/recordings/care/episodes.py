"""Lists the episodes of a store from its indices: no image is unpacked, nothing is written.

An episode is a run of steps of one session: it begins at ``is_first``, and after every gap; it
ends at ``is_last``, and before every gap.  Its name is the beginning of its session and its
number in it, such as ``3fa94c01.12``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wm_core.contract.errors import ChunkRefused, StoreError, WmError, nearest
from wm_core.contract.spec import Spec
from wm_core.format.chunk import chunk_path
from wm_core.format.front import ChunkFront, read_front
from wm_core.store.index import Index, load_index, step_number
from wm_core.store.ledger import ChunkRow, Ledger

log = logging.getLogger(__name__)

NAME_DIGITS = 8  #: of the session, in an episode's name
EpisodeEnd = Literal["terminal", "last", "open", "gap"]


@dataclass
class StoredEpisode:
    """Describes one episode of a store; ``spans`` says where its steps lie."""

    robot: str
    session: str
    number: int  #: in its session, from 0
    task: str
    spec: Spec
    start_ns: int  #: stamp of its first step
    first_step: int  #: index of it in the session
    is_whole: bool  #: begins with ``is_first`` and has an end
    end: EpisodeEnd = (
        "open"  #: why it ends: ``gap`` before steps that are missing, ``open`` at the last
    )
    steps: int = 0
    total: float = 0.0  #: sum of its rewards that are finite: its return
    rewarded: int = 0  #: steps with a reward other than 0
    interventions: int = 0
    invalid: int = 0
    versions: Counter[int] = field(default_factory=Counter)  #: steps by policy version
    seconds: float = 0.0  #: that its steps took by their periods
    spans: list[tuple[ChunkRow, int, int]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.session[:NAME_DIGITS]}.{self.number}"

    def as_json(self) -> dict[str, Any]:
        """Give what is known of it as plain values."""
        return {
            "episode": self.name, "robot": self.robot, "session": self.session,
            "number": self.number, "task": self.task, "start_ns": self.start_ns,
            "first_step": self.first_step, "steps": self.steps, "seconds": self.seconds,
            "return": self.total, "whole": self.is_whole, "end": self.end,
            "interventions": self.interventions, "invalid": self.invalid,
            "policy_versions": {str(v): n for v, n in sorted(self.versions.items())},
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
    pruned = ledger.pruned_through()
    for robot, session in ledger.sessions():
        if wanted.robot in ("", robot) and session.startswith(wanted.session):
            rows = [r for r in ledger.of_session(robot, session) if r.arrival > pruned]
            walk = _Walk(root, rows, left_out)
            yield from filter(wanted.takes, walk.episodes())


class _Walk:
    """Joins the chunks of one session to its episodes."""

    def __init__(self, root: Path, rows: list[ChunkRow], left_out: Counter[str]) -> None:
        self._root, self._rows, self._left_out = root, rows, left_out
        self._front: tuple[int, ChunkFront] | None = None
        self._number = 0

    def episodes(self) -> Iterator[StoredEpisode]:
        present: StoredEpisode | None = None
        expected = -1
        for row in self._rows:
            index = self._look(row)
            follows = row.first_step == expected and index is not None
            if present is not None and not follows:
                yield self._ended(present, "gap")
                present = None
            if index is None:
                expected = -1
                continue
            expected = row.first_step + row.steps
            firsts = step_number(index.steps, "is_first")
            lasts = step_number(index.steps, "is_last")
            begin = 0
            while begin < row.steps:
                if present is not None and firsts[begin]:
                    yield self._ended(present, "gap")
                    present = None
                stop = _stop(firsts, lasts, begin)
                if present is None:
                    present = self._begun(row, index, begin, bool(firsts[begin]))
                _count(present, row, index, begin, stop)
                if lasts[stop - 1]:
                    terminal = step_number(index.steps[stop - 1 : stop], "is_terminal")[0]
                    yield self._ended(present, "terminal" if terminal else "last")
                    present = None
                begin = stop
        if present is not None:
            yield self._ended(present, "open")

    def _look(self, row: ChunkRow) -> Index | None:
        try:
            chunk_path(self._root, row.key).lstat()  # an index may outlive its chunk
            return load_index(self._root, row, keep=False)
        except (OSError, ValueError, WmError) as error:
            gone = isinstance(error, FileNotFoundError)
            self._left_out["gone" if gone else "damaged"] += 1
            log.warning("chunk %s is left out: %s", tuple(row.key), error)
            return None

    def _begun(self, row: ChunkRow, index: Index, at: int, is_whole: bool) -> StoredEpisode:
        task, start_ns = "", 0
        try:
            if self._front is None or self._front[0] != row.arrival:
                self._front = row.arrival, read_front(chunk_path(self._root, row.key))
            front = self._front[1]
            task, start_ns = front.meta.task, int(front.log_time[at])
        except (OSError, ChunkRefused, IndexError) as error:
            log.warning("chunk %s does not say its times: %s", tuple(row.key), error)
        number, self._number = self._number, self._number + 1
        return StoredEpisode(
            robot=row.robot, session=row.session, number=number, task=task, spec=index.spec,
            start_ns=start_ns, first_step=row.first_step + at, is_whole=is_whole,
        )  # fmt: skip

    @staticmethod
    def _ended(episode: StoredEpisode, end: EpisodeEnd) -> StoredEpisode:
        episode.end = end
        episode.is_whole &= end in ("terminal", "last")
        return episode


def _stop(firsts: np.ndarray, lasts: np.ndarray, begin: int) -> int:
    """Where the episode of step ``begin`` ends in a chunk of steps with flags (n,) and (n,)."""
    ends = np.flatnonzero(lasts[begin:])
    anew = np.flatnonzero(firsts[begin + 1 :])
    stop = len(lasts)
    if len(ends):
        stop = min(stop, begin + int(ends[0]) + 1)
    if len(anew):
        stop = min(stop, begin + 1 + int(anew[0]))
    return stop


def _count(episode: StoredEpisode, row: ChunkRow, index: Index, begin: int, stop: int) -> None:
    steps = index.steps[begin:stop]
    reward = steps["reward"][np.isfinite(steps["reward"])]
    episode.steps += len(steps)
    episode.total += float(reward.sum(dtype=np.float64))
    episode.rewarded += int((reward != 0).sum())
    episode.interventions += int(step_number(steps, "is_intervention").sum())
    episode.invalid += int((~step_number(steps, "is_valid")).sum())
    held = steps["period_s"]
    own = (held > 0) & np.isfinite(held)
    others = int((~own).sum()) * index.spec.period_s
    episode.seconds += float(held[own].sum(dtype=np.float64)) + others
    versions, counts = np.unique(steps["policy_version"], return_counts=True)
    for version, count in zip(versions.tolist(), counts.tolist(), strict=True):
        episode.versions[version] += count
    episode.spans.append((row, begin, stop))


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
