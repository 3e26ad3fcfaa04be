"""Reads a store as episodes, one step after the other, so that memory does not grow with it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkMeta, chunk_path, decode_chunk
from wm_core.recordings.outgoing.choice import ChosenSession, EpisodeNumbers, rows_of_session
from wm_core.store.examine import lacks, read_stored
from wm_core.store.ledger import ChunkRow, Ledger

log = logging.getLogger(__name__)

_TOLD = 20  # chunks that are named in the log, per reason


@dataclass(frozen=True)
class ChosenEpisode:
    """Describes a run of steps without a gap: an episode, or what is left of one.

    Its flags are those that were stored: where chunks before or behind it are missing, its first
    step is not ``is_first`` or its last one not ``is_last``.
    """

    number: int  #: in the order of the export, from 0, also of those that are not wanted
    robot: str
    session: str
    task: str
    spec: Spec
    first_step: int  #: index within the session of the first step
    steps: Iterator[Step]  #: to be read before the next episode is asked for


class _Placed(NamedTuple):
    place: int  # within the session
    meta: ChunkMeta
    step: Step


class EpisodeReader:
    """Iterates over the episodes of chosen sessions; reads the store and changes nothing.

    What cannot be used is left out, counted by reason and named in the log.

    Args:
        root: the store's folder.
        ledger: of that store, opened to be read.
        sessions: chosen, in order.
        numbers: which episodes of these are wanted, besides ``named``.
        named: session and index of the first step of others that are.
        spec: leave out chunks that were recorded with another one; None takes any.
        on_chunk: called with each chunk's row before it is read.
    """

    def __init__(
        self,
        root: Path,
        ledger: Ledger,
        sessions: Sequence[ChosenSession],
        numbers: EpisodeNumbers,
        *,
        named: Set[tuple[str, int]] = frozenset(),
        spec: Spec | None = None,
        on_chunk: Callable[[ChunkRow], object] = lambda row: None,
    ) -> None:
        self.left_out: Counter[str] = Counter()  #: steps by reason (a-z, 0-9, _)
        self.seen = 0  #: episodes, wanted or not
        self.broken = 0  #: episodes of these that are wanted and lack their begin or their end
        self._told: Counter[str] = Counter()  # chunks by reason
        self._root, self._ledger, self._sessions = root, ledger, sessions
        self._numbers, self._named, self._spec, self._on_chunk = numbers, named, spec, on_chunk

    def __iter__(self) -> Iterator[ChosenEpisode]:
        for session in self._sessions:
            placed = self._steps(session)
            ahead = next(placed, None)
            while ahead is not None:
                if self._numbers.last is not None and self.seen > self._numbers.last:
                    return
                run = _Run(ahead, placed)
                meta = ahead.meta
                if self.seen in self._numbers or (meta.session, ahead.place) in self._named:
                    yield ChosenEpisode(
                        number=self.seen,
                        robot=meta.robot,
                        session=meta.session,
                        task=meta.task,
                        spec=meta.spec,
                        first_step=ahead.place,
                        steps=run,
                    )
                    for _ in run:  # what the taker has left
                        pass
                    self.broken += not (ahead.step.is_first and run.ends)
                else:
                    for _ in run:
                        pass
                self.seen += 1
                ahead = run.ahead

    def _steps(self, session: ChosenSession) -> Iterator[_Placed]:
        end = 0
        for row in rows_of_session(self._ledger, session):
            self._on_chunk(row)
            if row.first_step < end:
                self._leave_out(row, "overlap", "its steps are those of another chunk")
                continue
            try:
                meta, steps = decode_chunk(read_stored(chunk_path(self._root, row.key), row))
            except FileNotFoundError:
                self._leave_out(row, "gone", "its file is not there")
                continue
            except Exception as error:  # whatever a file holds, the others are exported
                self._leave_out(row, "damaged", str(error))
                continue
            if self._spec not in (None, meta.spec):
                why = lacks(meta.spec, self._spec) or "it has more inputs"
                self._leave_out(row, "other_spec", why)
                continue
            end = meta.first_step + meta.steps
            for offset, step in enumerate(steps):
                yield _Placed(meta.first_step + offset, meta, step)

    def _leave_out(self, row: ChunkRow, reason: str, why: str) -> None:
        self.left_out[reason] += row.steps
        self._told[reason] += 1
        if self._told[reason] <= _TOLD:
            more = " (later ones are only counted)" if self._told[reason] == _TOLD else ""
            log.warning("chunk %s is left out: %s%s", tuple(row.key), why, more)


class _Run:
    """Iterates over steps up to the end of their episode; what follows is then ``ahead``."""

    def __init__(self, first: _Placed, rest: Iterator[_Placed]) -> None:
        self.ahead: _Placed | None = first
        self.ends = False  #: whether the last step is the last of its episode
        self._rest, self._done = rest, False

    def __iter__(self) -> Iterator[Step]:
        return self

    def __next__(self) -> Step:
        now = self.ahead
        if self._done or now is None:
            raise StopIteration
        self.ahead = following = next(self._rest, None)
        self.ends = now.step.is_last
        self._done = (
            following is None
            or now.step.is_last
            or following.step.is_first
            or following.place != now.place + 1
            or not _alike(following.meta, now.meta)
        )
        return now.step


def _alike(meta: ChunkMeta, other: ChunkMeta) -> bool:
    return meta is other or (meta.task, meta.spec) == (other.task, other.spec)
