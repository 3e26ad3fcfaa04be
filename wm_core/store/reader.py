"""Reads the store for the learner: every valid step that has arrived, images from the disk.

The ledger says what there is.  Each chunk's small arrays (some tens of bytes per step, and vectors
of at most ``index.LARGE`` numbers) stand in one table in memory, in order of arrival; images and
larger vectors are read when they are asked for.  A window may
span files; it never spans a missing chunk or an invalid step.
"""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from itertools import pairwise, takewhile
from pathlib import Path

import numpy as np

from wm_core.contract.errors import StoreError
from wm_core.contract.spec import Obs, Spec
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.store.arrived import Arrived
from wm_core.store.examine import lacks
from wm_core.store.existing import existing_store
from wm_core.store.frames import (
    BlockCache,
    BlockLost,
    BlockPlace,
    copy_frames,
    copy_numbers,
    run_ends,
)
from wm_core.store.index import Index, large_vectors, load_index, step_dtype
from wm_core.store.invalid import InvalidSteps
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger
from wm_core.store.segments import Segment, Session, StoredChunk, valid_runs

log = logging.getLogger(__name__)

#: copies what begins at offsets (n,) of a block to rows (n, ...)
Copy = Callable[[bytes, np.ndarray, np.ndarray], None]
_SESSION_SHIFT = 32
_FIRST_ROWS = 4096
_TOLD = 20  # chunks that are named in the log, per reason


class Store:
    """Reads a growing folder of chunks for training; one process may hold several.

    ``refresh`` reads from the ledger what has arrived and what was pruned.  Every method may be
    called from any thread; ``lock`` keeps the store still over several calls.

    A chunk that cannot be used is left out, counted by reason and named in the log: no row and no
    file ends the reading.

    Args:
        root: the folder that holds the ledger and the chunk files.
        cache_bytes: bound of the unpacked images and large vectors that stay in memory.
        spec: of what is learnt: chunks that lack one of its inputs, or have other actions or
            another period, are left out, and inputs that it does not name are not read.  None
            takes the spec that most of the first steps were recorded with.
        keep_indices: write indices that are missing beside their chunks, so that the next one
            to open the store need not decode these; False writes nothing.

    Raises:
        StoreError: where there is no store at ``root``; none is made.
    """

    def __init__(
        self,
        root: Path,
        *,
        cache_bytes: int,
        spec: Spec | None = None,
        keep_indices: bool = False,
    ) -> None:
        self.root = Path(root)
        self.lock = threading.RLock()
        self.cache = BlockCache(cache_bytes)
        self.steps = 0  #: that ever arrived, whether or not they are still there; never falls
        self.left_out: Counter[str] = Counter()  #: chunks that are of no use, by reason
        self._told: Counter[str] = Counter()  # chunks to report, by reason; not all are
        self.invalid = InvalidSteps()  #: steps of the other chunks that are not learnt from
        self.arrival = 0  #: the last one in the ledger that ``refresh`` has read
        self.version = 0  #: grows with every change of ``segments``
        self._keep_indices = keep_indices
        self._ledger = Ledger(existing_store(self.root) / LEDGER_NAME, read_only=True)
        self._spec: Spec | None = None
        self._numbers: dict[tuple[str, str], int] = {}
        self._sessions: dict[int, Session] = {}
        self._chunks: dict[int, StoredChunk] = {}
        self._arrivals: list[int] = []  # of every chunk number so far
        self._arrived = Arrived()
        self._pruned = 0
        self._table = np.empty(0, np.uint8)
        self._first_row = self.end_row = 0  # rows keep their numbers when older ones leave
        self._segments: list[Segment] | None = None
        if spec is not None:
            self._pin(spec)

    @property
    def skipped(self) -> int:
        """Chunks that are in the ledger and of no use: another spec, damaged, or gone."""
        return self.left_out.total()

    @property
    def spec(self) -> Spec:
        if self._spec is None:
            raise StoreError(f"{self.root} is empty: its spec is known when a chunk has arrived")
        return self._spec

    @property
    def sessions(self) -> list[tuple[str, str]]:
        """Robot and session that each session number, from 0 on, stands for in this store."""
        with self.lock:
            return list(self._numbers)

    @property
    def segments(self) -> list[Segment]:
        """List every run of contiguous valid steps, by session and time."""
        with self.lock:
            if self._segments is None:
                sessions = sorted(self._sessions.items())
                self._segments = [s for _, session in sessions for s in session.segments]
            return self._segments

    # ------------------------------------------------------------------ what comes and goes

    def refresh(self) -> int:
        """Read what is new in the ledger; returns how many steps have arrived since."""
        with self.lock:
            before = self.steps
            pruned = self._ledger.pruned_through()
            rows = self._ledger.since(self.arrival)
            held = [self._moves(row) for row in rows]
            if pruned > self._pruned:
                self._pruned = pruned
                self._keep({n for n, c in self._chunks.items() if c.arrival > pruned})
            found = [(row, self._look(row)) for row in rows] if self._spec is None else None
            if found is not None:
                self._choose_spec(found)
            for at, row in enumerate(rows):
                if not held[at]:
                    index = self._look(row) if found is None else found[at][1]
                    self._take(row, index)
                self.arrival = row.arrival
            return self.steps - before

    def _moves(self, row: ChunkRow) -> bool:
        """Tell whether the chunk of ``row`` is held already, under an earlier arrival.

        `wm data gc` gives what it keeps a new arrival.  The chunk stays where it is in the table,
        as nothing of it is new to learn from, and counts as evicted by its new arrival only.
        """
        number = self._numbers.get((row.robot, row.session), -1)
        session = self._sessions.get(number)
        chunk = None if session is None else session.chunk_of(row.seq)
        if chunk is None:
            return False
        chunk.arrival = row.arrival
        return True

    def _look(self, row: ChunkRow) -> Index | str:
        """Read the index of a row's chunk; the reason where it is of no use."""
        if row.arrival <= self._pruned:
            return "pruned"
        try:
            return load_index(self.root, row, keep=self._keep_indices)
        except FileNotFoundError:
            reason, error = "gone", "its file is not there"
        except OSError as refused:
            reason, error = "unreadable", str(refused)
        except Exception as damage:  # whatever a file holds, the others are read
            reason, error = "damaged", str(damage)
        self._tell(reason, row.key, f"is left out: {error}")
        return reason

    def _choose_spec(self, found: list[tuple[ChunkRow, Index | str]]) -> None:
        """Pin the spec that most steps were recorded with; of two equals, the first."""
        steps: dict[str, int] = {}
        specs: dict[str, Spec] = {}
        for row, index in found:
            if isinstance(index, Index):
                text = index.spec.model_dump_json()
                specs[text], steps[text] = index.spec, steps.get(text, 0) + row.steps
        if steps:
            self._pin(specs[max(steps, key=lambda text: steps[text])])

    def _pin(self, spec: Spec) -> None:
        self._spec = spec
        fields = [("key", "<i8"), ("chunk", "<i4"), *step_dtype(spec).descr]
        self._table = np.empty(_FIRST_ROWS, np.dtype(fields))

    def _take(self, row: ChunkRow, index: Index | str) -> None:
        number = self._numbers.setdefault((row.robot, row.session), len(self._numbers))
        is_new = self._arrived.add(row.key)  # or was left out before, and counted
        if is_new:
            self.steps += row.steps
        if index == "pruned":
            return
        reason = why = ""
        if isinstance(index, str):
            reason = index  # which `_look` has told
        elif difference := lacks(index.spec, self.spec):
            reason, why = "other spec", difference
        elif not self._sessions.setdefault(number, Session(number)).fits(
            row.seq, row.first_step, row.steps
        ):
            reason, why = "overlap", "its steps are those of another chunk"
        else:
            self._add(row, number, index)
        if reason and is_new:
            self.left_out[reason] += 1
        if why:
            self._tell(reason, row.key, f"is left out: {why}")

    def _tell(self, reason: str, key: ChunkKey, what: str) -> None:
        """Log what became of a chunk, unless many others were lost for the same ``reason``."""
        self._told[reason] += 1
        if self._told[reason] <= _TOLD:
            more = " (later ones are only counted)" if self._told[reason] == _TOLD else ""
            log.warning("chunk %s %s%s", tuple(key), what, more)

    def _add(self, row: ChunkRow, number: int, index: Index) -> None:
        path = chunk_path(self.root, row.key)
        chunk = StoredChunk(
            number=len(self._arrivals),
            arrival=row.arrival,
            key=row.key,
            first_step=row.first_step,
            steps=row.steps,
            row=self.end_row,
            blocks=[BlockPlace(path, *map(int, block)) for block in index.blocks],
            runs=valid_runs(index),
            codecs=index.codecs,
        )
        self.invalid.add(index)
        new = self._grow(row.steps)
        for name in step_dtype(self.spec).names or ():
            new[name] = index.steps[name]
        new["key"] = (number << _SESSION_SHIFT) + row.first_step + np.arange(row.steps)
        new["chunk"] = chunk.number
        self._chunks[chunk.number] = chunk
        self._arrivals.append(row.arrival)
        self._sessions[number].add(chunk)
        self._changed()

    def _grow(self, count: int) -> np.ndarray:
        """Append ``count`` rows to the table and return them, to be written."""
        begin = self.end_row - self._first_row
        if begin + count > len(self._table):
            table = np.empty(max(2 * begin, begin + count), self._table.dtype)
            table[:begin] = self._table[:begin]
            self._table = table
        self.end_row += count
        return self._table[begin : begin + count]

    def _keep(self, numbers: set[int]) -> None:
        """Forget every chunk whose number is not among ``numbers``."""
        forgotten = self._chunks.keys() - numbers
        touched = {self._numbers[self._chunks[n].key[:2]] for n in forgotten}
        self._chunks = {n: c for n, c in self._chunks.items() if n in numbers}
        for number in touched:
            self._sessions[number].keep(numbers)
            if not self._sessions[number].chunks:
                del self._sessions[number]
        self.cache.forget(forgotten)
        first = min((c.row for c in self._chunks.values()), default=self.end_row)
        self._table = self._table[first - self._first_row : self.end_row - self._first_row].copy()
        self._first_row = first
        self._changed()

    def _changed(self) -> None:
        self._segments = None
        self.version += 1

    # ------------------------------------------------------------------ what is read

    def find(self, key: int) -> tuple[Segment, int] | None:
        """Find the segment that holds the step ``key`` and its position there, or None."""
        with self.lock:
            session = self._sessions.get(key >> _SESSION_SHIFT)
            return session.find(key & (2**_SESSION_SHIFT - 1)) if session else None

    def row_after(self, arrival: int) -> int:
        """Return the first row of what arrived after ``arrival``."""
        with self.lock:
            later = (
                self._chunks[n].row
                for n in range(bisect_right(self._arrivals, arrival), len(self._arrivals))
                if n in self._chunks
            )
            return next(later, self.end_row)

    def runs_from(self, row: int) -> list[tuple[int, int]]:
        """List (key of the first, count) of each chunk's runs of valid steps from ``row`` on."""
        with self.lock:
            chunks = takewhile(lambda c: c.row >= row, reversed(self._chunks.values()))
            return [
                ((self._numbers[c.key[:2]] << _SESSION_SHIFT) + c.first_step + start, stop - start)
                for c in chunks
                for start, stop in c.runs
            ]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Copy the steps at ``rows`` (...) int64, without their images."""
        with self.lock:
            return self._table[rows - self._first_row]

    def observe(self, steps: np.ndarray) -> Obs:
        """Read the observations of ``steps`` (...), which ``read`` gave.

        Returns:
            images (..., H, W, C) and vectors (..., n) float32.

        Raises:
            BlockLost: where a file has gone; its chunk is then left out of ``segments``.
        """
        obs: Obs = {}
        with self.lock:
            for key, spec in self.spec.images.items():
                out = np.empty((steps.size, spec.recorded_bytes), np.uint8)
                self._read_blocks(key, steps.reshape(-1), out, copy_frames)
                pixels = out.view(spec.dtype.newbyteorder("<")).astype(spec.dtype, copy=False)
                obs[key] = pixels.reshape(*steps.shape, *spec.shape)
            for key in large_vectors(self.spec):
                numbers = np.empty((steps.size, self.spec.vectors[key].size), np.float32)
                self._read_blocks(key, steps.reshape(-1), numbers, copy_numbers)
                obs[key] = numbers.reshape(*steps.shape, -1)
        for key in self.spec.vectors.keys() - obs.keys():
            obs[key] = np.ascontiguousarray(steps[f"vector.{key}"])
        return {key: obs[key] for key in (*self.spec.images, *self.spec.vectors)}

    def _read_blocks(self, key: str, steps: np.ndarray, out: np.ndarray, copy: Copy) -> None:
        """Fill ``out`` (N, ...) with the input ``key`` of ``steps`` (N,) by ``copy``."""
        chunks, blocks = steps["chunk"].astype(np.int64), steps[f"block.{key}"]
        offsets = steps[f"offset.{key}"]
        place = (chunks << 16) + blocks
        bounds = [0, *run_ends(place, offsets).tolist(), len(steps)]
        try:
            for begin, end in pairwise(bounds):
                name = int(chunks[begin]), int(blocks[begin])
                chunk, here = self._chunks[name[0]], slice(begin, end)
                if key in chunk.codecs:
                    place, image = chunk.blocks[name[1]], self.spec.images[key]
                    self.cache.read_pictures(name, place, image, offsets[here], out[here])
                    continue
                block = self.cache.find(name)
                if block is None:
                    block = self.cache.read(name, chunk.blocks[name[1]])
                copy(block, offsets[here], out[here])
        except BlockLost:
            self._tell("gone or damaged", self._chunks[name[0]].key, "is gone")
            self.left_out["gone or damaged"] += 1
            self._keep(self._chunks.keys() - {name[0]})
            raise
        finally:
            self.cache.release()

    def close(self) -> None:
        """Close the ledger; a second call does nothing."""
        self._ledger.close()
