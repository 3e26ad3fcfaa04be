"""Chooses what of a store is exported, and in which order, by the ledger alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wm_core.contract.errors import ChunkRefused, RecordingError, nearest
from wm_core.format.chunk import chunk_path
from wm_core.format.front import read_front
from wm_core.recordings.care.episodes import stored_episodes
from wm_core.store.episodes import kept_of_session
from wm_core.store.ledger import ChunkRow, Ledger

SessionOrder = Literal["arrival", "name", "time"]
ORDER_TEXT = (
    "Order of the sessions: as they first arrived, by the names of robot and session, or by the "
    "time of their first step; within a session steps stay in order"
)
_ROWS = 1024  # that are asked of the ledger at once
_NAME = re.compile(r"[0-9a-f]{1,32}\.\d{1,12}")
_RANGE = re.compile(r"(\d{1,12})(?:-(\d{0,12}))?")


@dataclass(frozen=True)
class ExportChoice:
    """Says what of a store is exported."""

    robots: tuple[str, ...] = ()  #: by name; none: all
    sessions: tuple[str, ...] = ()  #: by the first digits of their names; none: all
    #: numbers in the order of the export, as in "0-9,12,20-", and names; empty: all
    episodes: str = ""
    order: SessionOrder = "arrival"


class EpisodeNumbers:
    """Holds which episodes are wanted; raises ``RecordingError`` for what says none.

    Args:
        text: numbers, ranges and names, such as "0-9,12,20-" or "3fa94c01.12"; empty for all.
    """

    def __init__(self, text: str) -> None:
        self.names: list[str] = []  #: as ``wm data ls`` gives them
        self._ranges: list[tuple[int, int | None]] = []
        for part in text.replace(" ", "").split(",") if text.strip() else []:
            if _NAME.fullmatch(part):
                self.names.append(part)
                continue
            found = _RANGE.fullmatch(part)
            if found is None:
                raise RecordingError(
                    "episodes: expected numbers from 0 and ranges, as in 0-9,12,20-, or names as "
                    f"wm data ls gives them, as in 3fa94c01.12; got {part!r}"
                )
            first, last = int(found[1]), found[2]
            end = first if last is None else int(last) if last else None
            if end is not None and end < first:
                raise RecordingError(f"episodes: the range {part} ends before it begins")
            self._ranges.append((first, end))

    @property
    def all(self) -> bool:
        """Tell whether every episode is wanted."""
        return not self._ranges and not self.names

    @property
    def only_names(self) -> bool:
        """Tell whether names are all that was given."""
        return bool(self.names) and not self._ranges

    @property
    def last(self) -> int | None:
        """Give the highest number that is wanted; None where there is no such bound."""
        ends = [end for _, end in self._ranges]
        return None if self.names or not ends or None in ends else max(end or 0 for end in ends)

    def __contains__(self, number: int) -> bool:
        return self.all or any(
            first <= number and (end is None or number <= end) for first, end in self._ranges
        )

    def beyond(self, count: int) -> int | None:
        """Give a number that was asked for by name and is not below ``count``; None if none."""
        named = [n for first, end in self._ranges for n in (first, end) if n is not None]
        return next((number for number in named if number >= count), None)


@dataclass(frozen=True)
class ChosenSession:
    """Describes one session of the choice."""

    robot: str
    session: str
    steps: int
    bytes: int
    arrival: int  #: of its first chunk
    through: int  #: the last arrival in the ledger when the export began


def choose(root: Path, ledger: Ledger, choice: ExportChoice) -> list[ChosenSession]:
    """List the chosen sessions in order.

    Args:
        root: the store's folder.
        ledger: of that store.
        choice: what is wanted; ``episodes`` is not looked at.

    Raises:
        RecordingError: for a robot or session that the store does not hold, with the nearest.
    """
    through = ledger.counts()["arrival"]
    found: dict[tuple[str, str], ChosenSession] = {}
    for row in _rows(ledger, through):
        known = found.get(row.key[:2])
        if known is None:
            known = ChosenSession(row.robot, row.session, 0, 0, row.arrival, through)
        found[row.key[:2]] = replace(
            known, steps=known.steps + row.steps, bytes=known.bytes + row.bytes
        )
    if not found:
        raise RecordingError(f"{root} holds no chunks yet; there is nothing to export")
    robots = {session.robot for session in found.values()}
    for robot in choice.robots:
        if robot not in robots:
            raise RecordingError(nearest(robot, robots, what=f"robot in {root}"))
    for begin in choice.sessions:
        if not any(session.session.startswith(begin) for session in found.values()):
            names = {session.session for session in found.values()}
            raise RecordingError(nearest(begin, names, what=f"session in {root}"))
    chosen = [
        s
        for s in found.values()
        if (not choice.robots or s.robot in choice.robots)
        and (not choice.sessions or s.session.startswith(choice.sessions))
    ]
    if not chosen:
        raise RecordingError(
            f"{root}: none of the sessions {', '.join(choice.sessions)} is of the robots "
            f"{', '.join(choice.robots)}"
        )
    if choice.order == "name":
        return sorted(chosen, key=lambda s: (s.robot, s.session))
    if choice.order == "time":
        return sorted(chosen, key=lambda s: (_begin_ns(root, ledger, s), s.robot, s.session))
    return sorted(chosen, key=lambda s: s.arrival)


def places_of(
    root: Path, ledger: Ledger, names: Sequence[str], sessions: Sequence[ChosenSession]
) -> set[tuple[str, int]]:
    """Find (session, index of the first step) of the episodes ``names`` in chosen sessions.

    Raises:
        RecordingError: for a name that no episode has, with the nearest.
    """
    chosen, found, known = {s.session for s in sessions}, {}, []
    for episode in stored_episodes(root, ledger) if names else ():
        if episode.session in chosen:
            known.append(episode.name)
            for name in names:
                begin, _, number = name.partition(".")
                if episode.session.startswith(begin) and episode.number == int(number):
                    found[name] = (episode.session, episode.first_step)
    for name in names:
        if name not in found:
            raise RecordingError(nearest(name, known, what=f"episode in {root}"))
    return set(found.values())


def rows_of_session(ledger: Ledger, session: ChosenSession) -> list[ChunkRow]:
    """List the chunks of a session by sequence number, as they were when the export began."""
    rows = kept_of_session(ledger, session.robot, session.session)
    return [row for row in rows if row.arrival <= session.through]


def _rows(ledger: Ledger, through: int) -> Iterator[ChunkRow]:
    arrival = ledger.pruned_through()
    while rows := ledger.since(arrival, limit=_ROWS):
        for row in rows:
            if row.arrival > through:
                return
            yield row
        arrival = rows[-1].arrival


def _begin_ns(root: Path, ledger: Ledger, session: ChosenSession) -> int:
    """Find the stamp of the first step of a session that can be read."""
    for row in rows_of_session(ledger, session):
        try:
            return int(read_front(chunk_path(root, row.key)).log_time[0])
        except (OSError, ChunkRefused):  # the next one is looked at
            continue
    return 2**63
