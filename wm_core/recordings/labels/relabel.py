"""Writes a store anew with other rewards; all else of its steps stays, gaps and flags included.

Sessions get names that follow from the old one and from what decides the rewards, and chunks keep
their numbers, so that the same labels of the same steps give the same chunks: labelling again, or
a store that has grown, writes what is new alone.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from wm_core.contract.errors import ChunkRefused, StoreError
from wm_core.contract.step import Step, is_usable
from wm_core.format.chunk import ChunkKey, chunk_path, decode_chunk, encode_chunk
from wm_core.format.meta import ChunkMeta
from wm_core.recordings.labels.labeller import Labeller, StepRun
from wm_core.recordings.write_store import MIN_FREE_BYTES
from wm_core.store.episodes import kept_of_session
from wm_core.store.examine import read_stored
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger


@dataclass
class Relabelled:
    """Counts what became of a store's steps."""

    episodes: int = 0
    steps: int = 0
    rewarded: int = 0  #: steps whose reward is not 0
    unknown: int = 0  #: steps, first ones aside, without a reward: kept, and not learnt from
    total: float = 0.0  #: sum of the rewards
    low: float = math.inf
    high: float = -math.inf
    new: int = 0  #: chunks that were stored ...
    known: int = 0  #: ... and that were stored already
    begun_late: int = 0  #: new chunks amid an episode whose begin was evicted before
    left_out: Counter[str] = field(default_factory=Counter)  #: chunks that cannot be read

    def add(self, steps: list[Step]) -> None:
        """Count ``steps`` with their new rewards."""
        for step in steps:
            self.steps += 1
            self.episodes += step.is_first
            if step.is_first:
                continue
            if math.isnan(step.reward):
                self.unknown += 1
                continue
            self.rewarded += step.reward != 0
            self.total += step.reward
            self.low, self.high = min(self.low, step.reward), max(self.high, step.reward)


def relabel(
    root: Path,
    ledger: Ledger,
    to: Path,
    labeller: Labeller,
    *,
    on_chunk: Callable[[ChunkRow], object] = lambda row: None,
    min_free_bytes: int = MIN_FREE_BYTES,
) -> Relabelled:
    """Write the steps of the store ``root`` into the store ``to``, with rewards of ``labeller``.

    Args:
        root: is only read.
        ledger: of ``root``.
        to: another store than ``root``; made where it is not there.
        labeller: gives the rewards.
        on_chunk: called before each chunk is read.
        min_free_bytes: leave at least this much room on the disk of ``to``.

    Raises:
        StoreError: where ``to`` does not take a chunk.
        SettingsError: where the labeller fails.
    """
    found = Relabelled()
    target = Ledger(to / LEDGER_NAME)
    try:
        for robot, session in ledger.sessions():
            begun, rows = _Present(), kept_of_session(ledger, robot, session)
            for row in rows:
                on_chunk(row)
                chunk = _read(root, row, found.left_out)
                if chunk is None:
                    begun = _Present()
                    continue
                meta, steps = chunk
                steps = _labelled(meta, steps, labeller, begun)
                renamed = _renamed(meta, labeller)
                data, old = encode_chunk(steps, renamed), target.find(renamed.key)
                if old is not None and old.sha256 != hashlib.sha256(data).hexdigest():
                    # labelled when steps before it were there that have been evicted since: it
                    # says more than what can be made of it now
                    stored = _read(to, old, Counter())
                    found.add(steps if stored is None else stored[1])
                    found.known += 1
                    continue
                found.add(steps)
                verdict = ingest(
                    to, target, renamed.key, data,
                    max_bytes=len(data), min_free_bytes=min_free_bytes,
                )  # fmt: skip
                if not verdict.ok:
                    raise StoreError(f"{to}: {verdict.kind}: {verdict.reason}")
                found.new += verdict.kind == "stored"
                found.known += verdict.kind == "known"
                late = row is rows[0] and row.first_step > 0 and not steps[0].is_first
                found.begun_late += late and verdict.kind == "stored"
    finally:
        target.close()
    return found


@dataclass
class _Present:
    """Is where the walk through a session stands: the episode that goes on, and its last step."""

    next_step: int = -1
    length: int = 0
    last: Step | None = None
    memory: dict[str, object] = field(default_factory=dict)


def _read(
    root: Path, row: ChunkRow, left_out: Counter[str]
) -> tuple[ChunkMeta, list[Step]] | None:
    try:
        return decode_chunk(read_stored(chunk_path(root, row.key), row))
    except FileNotFoundError:
        left_out["gone"] += 1
    except (OSError, ChunkRefused):
        left_out["damaged"] += 1
    return None


def _renamed(meta: ChunkMeta, labeller: Labeller) -> ChunkMeta:
    """``meta`` of the same chunk with rewards of ``labeller``."""
    session = hashlib.sha256(f"{meta.session} {labeller.fingerprint}".encode()).hexdigest()[:32]
    key = ChunkKey(meta.robot, session, meta.seq)
    return meta.model_copy(update=key._asdict())


def _labelled(
    meta: ChunkMeta, steps: list[Step], labeller: Labeller, begun: _Present
) -> list[Step]:
    """``steps`` of a chunk with their new rewards; ``begun`` moves on behind them."""
    if meta.first_step != begun.next_step:
        begun.last, begun.length, begun.memory = None, 0, {}
    out: list[Step] = []
    for run in _runs(steps):
        if run[0].is_first or (begun.last is not None and begun.last.is_last):
            begun.last, begun.length, begun.memory = None, 0, {}
        about = StepRun(
            robot=meta.robot, session=meta.session, task=meta.task, spec=meta.spec, steps=run,
            start=begun.length, before=begun.last, memory=begun.memory,
        )  # fmt: skip
        rewards = np.asarray(labeller.rewards(about), np.float64)
        for step, reward in zip(run, rewards.tolist(), strict=True):
            new = replace(step, reward=0.0 if step.is_first else reward)
            # a recorder calls a step invalid for a reward that is no number; others stay so
            valid = step.is_valid or not math.isfinite(step.reward)
            out.append(replace(new, is_valid=valid and is_usable(new, meta.spec)))
        begun.length += len(run)
        begun.last = run[-1]
    begun.next_step = meta.first_step + meta.steps
    return out


def _runs(steps: list[Step]) -> Iterator[list[Step]]:
    """Cut the steps of a chunk where an episode begins or has ended."""
    run: list[Step] = []
    for step in steps:
        if run and (step.is_first or run[-1].is_last):
            yield run
            run = []
        run.append(step)
    if run:
        yield run
