"""Joins the chunks of a session to its episodes, by their indices: no image is unpacked.

An episode is a run of steps of one session: it begins at ``is_first``, and after every gap; it
ends at ``is_last``, and before every gap.  Chunks may arrive in any order, and what is kept grows
with the episodes, not with the chunks.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from wm_core.contract.errors import StoreError
from wm_core.contract.spec import Spec
from wm_core.format.chunk import chunk_path
from wm_core.store.index import Index, load_index, step_number
from wm_core.store.ledger import ChunkRow, Ledger

NAME_DIGITS = 8  #: of the session, in an episode's name
EpisodeEnd = Literal["terminal", "last", "open", "gap"]


@dataclass(slots=True)
class StoredEpisode:
    """Describes one episode of a store without its steps."""

    robot: str
    session: str
    spec: Spec
    first_step: int  #: index of its first step in the session
    first_seq: int  #: of the first chunk that holds its steps
    last_seq: int  #: ... and of the last one
    begins: bool  #: its first step is an ``is_first``
    end: EpisodeEnd  #: ``gap``: before steps that are missing; ``open``: it may go on
    steps: int
    total: float  #: sum of its rewards that are finite: its return
    rewarded: int  #: steps with a reward other than 0
    interventions: int
    invalid: int
    versions: dict[int, int]  #: steps by version of the policy that acted; -1: none
    seconds: float  #: that its steps took by their periods
    arrived_ns: int  #: when its last chunk arrived, nanoseconds since 1970
    agent_steps: int = 0  #: steps that had arrived in the store with its last chunk
    number: int = -1  #: in its session, from 0
    task: str = ""  #: as ``recordings.care.episodes`` finds it
    start_ns: int = 0  #: stamp of its first step, as ``recordings.care.episodes`` finds it

    @property
    def name(self) -> str:
        """How people call it: the beginning of its session, and its number there."""
        return f"{self.session[:NAME_DIGITS]}.{self.number}"

    @property
    def version(self) -> int:
        """Newest policy that acted in it; -1 where none did."""
        return max(self.versions)

    @property
    def has_end(self) -> bool:
        """Whether its last step is an ``is_last``."""
        return self.end in ("terminal", "last")

    @property
    def is_whole(self) -> bool:
        """Whether it begins with ``is_first`` and has an end."""
        return self.begins and self.has_end

    def go_on(self, later: StoredEpisode) -> None:
        """Take in the steps that follow its own."""
        self.last_seq, self.end = later.last_seq, later.end
        self.steps += later.steps
        self.total += later.total
        self.rewarded += later.rewarded
        self.interventions += later.interventions
        self.invalid += later.invalid
        self.seconds += later.seconds
        for version, count in later.versions.items():
            self.versions[version] = self.versions.get(version, 0) + count
        self.arrived_ns = max(self.arrived_ns, later.arrived_ns)
        self.agent_steps = max(self.agent_steps, later.agent_steps)


@dataclass(slots=True)
class _Run:
    """Steps of one session without a gap, as the episodes that they belong to."""

    first_step: int
    end_step: int
    episodes: list[StoredEpisode]


class SessionEpisodes:
    """Joins the chunks of one session, in whatever order they are added."""

    def __init__(self, robot: str, session: str) -> None:
        self.robot, self.session = robot, session
        self.end_step = 0  #: steps that its robot has numbered
        self.last_seq = -1  #: of the newest chunk
        self._runs: list[_Run] = []
        self._listed: list[StoredEpisode] | None = None

    def add(self, row: ChunkRow, pieces: list[StoredEpisode]) -> None:
        """Take in a chunk.

        Args:
            row: of the chunk.
            pieces: what ``pieces_of`` says of it; empty where it could not be read.
        """
        run = _Run(row.first_step, row.first_step + row.steps, pieces)
        self.end_step = max(self.end_step, run.end_step)
        self.last_seq = max(self.last_seq, row.seq)
        self._listed = None
        if pieces:
            at = bisect([r.first_step for r in self._runs], run.first_step)
            self._runs.insert(at, run)
            self._join(at)
            self._join(at - 1)

    def holds(self, step: int) -> bool:
        """Tell whether a chunk that could be read had the step number ``step``."""
        at = bisect([run.first_step for run in self._runs], step) - 1
        return at >= 0 and step < self._runs[at].end_step

    def episodes(self) -> list[StoredEpisode]:
        """List its episodes in order; not to be changed.  The last one may be open."""
        if self._listed is None:
            self._listed = [episode for run in self._runs for episode in run.episodes]
            for number, episode in enumerate(self._listed):
                episode.number = number
                if not episode.has_end:
                    episode.end = "gap"
            if self._listed and self._listed[-1].last_seq == self.last_seq:
                last = self._listed[-1]
                last.end = last.end if last.has_end else "open"
        return self._listed

    def _join(self, at: int) -> None:
        """Join the run ``at`` and the one behind it, where no step is missing between them."""
        if not 0 <= at < len(self._runs) - 1:
            return
        run, behind = self._runs[at], self._runs[at + 1]
        if run.end_step != behind.first_step:
            return
        last, following = run.episodes[-1], behind.episodes
        if not last.has_end and not following[0].begins:
            last.go_on(following[0])
            following = following[1:]
        run.episodes += following
        run.end_step = behind.end_step
        del self._runs[at + 1]


def pieces_of(root: Path, row: ChunkRow, agent_steps: int = 0) -> list[StoredEpisode]:
    """Cut the steps of a chunk where episodes begin and end.

    Args:
        root: the store's folder, to which nothing is written.
        row: of the chunk.
        agent_steps: steps that had arrived in the store with it.

    Raises:
        OSError: where the chunk is gone, or cannot be read.
        ChunkRefused: where it is not what was acknowledged.
    """
    chunk_path(root, row.key).lstat()  # an index may outlive its chunk
    index = load_index(root, row, keep=False)
    firsts, lasts = (step_number(index.steps, name) for name in ("is_first", "is_last"))
    edges = {0, *np.flatnonzero(firsts).tolist(), *(np.flatnonzero(lasts) + 1).tolist()}
    starts = sorted(edge for edge in edges if edge < row.steps)
    stops = [*starts[1:], row.steps]
    return [_piece(index, row, a, b, agent_steps) for a, b in zip(starts, stops, strict=True)]


def _piece(index: Index, row: ChunkRow, start: int, stop: int, agent_steps: int) -> StoredEpisode:
    steps = index.steps[start:stop]
    end: EpisodeEnd = "open"
    if step_number(steps, "is_last")[-1]:
        end = "terminal" if step_number(steps, "is_terminal")[-1] else "last"
    reward = steps["reward"][np.isfinite(steps["reward"])]
    period_s = steps["period_s"]
    held = period_s[(period_s > 0) & np.isfinite(period_s)]
    versions, counts = np.unique(steps["policy_version"], return_counts=True)
    return StoredEpisode(
        robot=row.robot, session=row.session, spec=index.spec,
        first_step=row.first_step + start, first_seq=row.seq, last_seq=row.seq,
        begins=bool(step_number(steps, "is_first")[0]), end=end, steps=len(steps),
        total=float(reward.sum(dtype=np.float64)), rewarded=int(np.count_nonzero(reward)),
        interventions=int(step_number(steps, "is_intervention").sum()),
        invalid=int((~step_number(steps, "is_valid")).sum()),
        versions=dict(zip(versions.tolist(), counts.tolist(), strict=True)),
        seconds=float(held.sum(dtype=np.float64)) + index.spec.period_s * (len(steps) - len(held)),
        arrived_ns=row.received_ns, agent_steps=agent_steps,
    )  # fmt: skip


def kept_of_session(ledger: Ledger, robot: str, session: str, **seqs: int) -> list[ChunkRow]:
    """List the rows of a session by sequence number that were not evicted.

    Args:
        ledger: of the store.
        robot: whose session it is.
        session: its name.
        **seqs: ``first`` and ``last`` sequence number of ``Ledger.of_session``.
    """
    pruned = ledger.pruned_through()
    return [r for r in ledger.of_session(robot, session, **seqs) if r.arrival > pruned]


def spans_of(ledger: Ledger, episode: StoredEpisode) -> Iterator[tuple[ChunkRow, int, int]]:
    """Say where the steps of ``episode`` lie: (chunk, first step in it, step behind the last).

    Raises:
        StoreError: where some are no longer in the store.
    """
    at, end = episode.first_step, episode.first_step + episode.steps
    seqs = {"first": episode.first_seq, "last": episode.last_seq}
    for row in kept_of_session(ledger, episode.robot, episode.session, **seqs):
        stop = min(row.steps, end - row.first_step)
        if row.first_step > at or stop <= 0:
            break
        yield row, at - row.first_step, stop
        at = row.first_step + stop
    if at < end:
        raise StoreError(f"steps of episode {episode.name} of {episode.robot!r} are gone")
