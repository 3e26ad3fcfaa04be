"""Joins chunks to segments: runs of steps without a gap, kept up to date as chunks change."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field

import numpy as np

from wm_core.format.chunk import ChunkKey
from wm_core.store.frames import BlockPlace
from wm_core.store.index import Index, step_number


@dataclass
class StoredChunk:
    """Describes one chunk; its steps are ``steps`` rows of the store's table from ``row``."""

    number: int  #: in order of arrival within this process
    arrival: int  #: in the ledger
    key: ChunkKey
    first_step: int
    steps: int
    row: int
    blocks: list[BlockPlace]
    runs: list[tuple[int, int]]  #: (start, stop) of the valid steps within the chunk
    codecs: tuple[str, ...] = ()  #: cameras whose images are JPEG pictures


def valid_runs(index: Index) -> list[tuple[int, int]]:
    """List (start, stop) of every run of valid steps."""
    valid = np.concatenate([[False], step_number(index.steps, "is_valid"), [False]])
    edges = np.flatnonzero(valid[1:] != valid[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


class Segment:
    """Holds contiguous valid steps of one session.

    Args:
        session: number of the session.
        first_index: index within the session of the first step.
    """

    def __init__(self, session: int, first_index: int) -> None:
        self.session, self.first_index, self.length = session, first_index, 0
        self._starts: list[int] = []  # positions at which a run of consecutive rows begins ...
        self._rows: list[int] = []  # ... and its first row

    def extend(self, row: int, count: int) -> None:
        """Append ``count`` steps that lie in the table from ``row`` on."""
        if not self._rows or self._rows[-1] + self.length - self._starts[-1] != row:
            self._starts.append(self.length)
            self._rows.append(row)
        self.length += count

    def rows(self, start: int, count: int) -> np.ndarray:
        """List the rows (count,) int64 of the steps from position ``start`` on."""
        out = np.empty(count, np.int64)
        piece, done = bisect_right(self._starts, start) - 1, 0
        while done < count:
            here = start + done - self._starts[piece]
            ends = self._starts[piece + 1] if piece + 1 < len(self._starts) else self.length
            take = min(count - done, ends - start - done)
            first = self._rows[piece] + here
            out[done : done + take] = np.arange(first, first + take)
            done, piece = done + take, piece + 1
        return out


@dataclass
class Session:
    """Holds the chunks of one session by sequence number, and the segments they make."""

    number: int
    chunks: list[StoredChunk] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    def add(self, chunk: StoredChunk) -> None:
        """Add a chunk; one that comes late may close a gap."""
        if not self.chunks or chunk.key.seq > self.chunks[-1].key.seq:
            self._append(chunk, self.chunks[-1] if self.chunks else None)
            self.chunks.append(chunk)
        else:
            insort(self.chunks, chunk, key=lambda c: c.key.seq)
            self._rebuild()

    def chunk_of(self, seq: int) -> StoredChunk | None:
        """Find the chunk with the sequence number ``seq``; None where it is not held."""
        at = bisect_left(self.chunks, seq, key=lambda c: c.key.seq)
        found = self.chunks[at : at + 1]
        return found[0] if found and found[0].key.seq == seq else None

    def fits(self, seq: int, first_step: int, steps: int) -> bool:
        """Tell whether a chunk of these steps lies between its neighbours by number."""
        at = bisect_left(self.chunks, seq, key=lambda c: c.key.seq)
        before, after = self.chunks[max(0, at - 1) : at], self.chunks[at : at + 1]
        return all(c.first_step + c.steps <= first_step for c in before) and all(
            c.key.seq != seq and c.first_step >= first_step + steps for c in after
        )

    def keep(self, numbers: set[int]) -> None:
        """Forget every chunk whose number is not among ``numbers``."""
        self.chunks = [chunk for chunk in self.chunks if chunk.number in numbers]
        self._rebuild()

    def find(self, index: int) -> tuple[Segment, int] | None:
        """Find the segment that holds step ``index`` of the session, and the position in it."""
        at = bisect_right(self.segments, index, key=lambda s: s.first_index) - 1
        if at < 0:
            return None
        position = index - self.segments[at].first_index
        return (self.segments[at], position) if position < self.segments[at].length else None

    def _rebuild(self) -> None:
        self.segments = []
        before: StoredChunk | None = None
        for chunk in self.chunks:
            self._append(chunk, before)
            before = chunk

    def _append(self, chunk: StoredChunk, before: StoredChunk | None) -> None:
        follows = (
            before is not None
            and before.key.seq + 1 == chunk.key.seq
            and before.first_step + before.steps == chunk.first_step
            and bool(before.runs)
            and before.runs[-1][1] == before.steps
        )
        for start, stop in chunk.runs:
            if start > 0 or not follows:
                self.segments.append(Segment(self.number, chunk.first_step + start))
            self.segments[-1].extend(chunk.row + start, stop - start)
