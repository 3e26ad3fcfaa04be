"""Exports what a store holds to a folder of another format, which appears when it is whole."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from wm_core.contract.errors import RecordingError
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import chunk_path, decode_chunk
from wm_core.recordings.care.place import reading
from wm_core.recordings.outgoing.choice import (
    ChosenSession,
    EpisodeNumbers,
    ExportChoice,
    choose,
    places_of,
    rows_of_session,
)
from wm_core.recordings.outgoing.episodes import EpisodeReader
from wm_core.recordings.outgoing.format import FORMATS, Writer, open_writer
from wm_core.recordings.outgoing.unfinished import MIN_FREE_BYTES, UnfinishedFolder
from wm_core.store.examine import read_stored
from wm_core.store.existing import existing_store
from wm_core.store.ledger import ChunkRow, Ledger

_SAMPLES = 4  # sessions of which a chunk is packed to guess how large the export becomes
_SAMPLE_STEPS = 8  # of each
_LOOK_CHUNKS = 64  # between two looks at the room of the disk


@dataclass
class Exported:
    """Counts what an export wrote."""

    place: Path
    sessions: int = 0  #: that were read
    episodes: int = 0
    steps: int = 0
    broken: int = 0  #: episodes of these that lack their begin or their end
    bytes: int = 0
    left_out: Counter[str] = field(default_factory=Counter)  #: steps by reason
    removed: Path | None = None  #: what a killed export had left, which was removed


def export_store(
    store: Path,
    to: Path,
    format: str,
    choice: ExportChoice = ExportChoice(),  # noqa: B008 (frozen)
    *,
    video: bool = False,
    min_free_bytes: int = MIN_FREE_BYTES,
    on_progress: Callable[[int, int, int], object] = lambda steps, read, total: None,
) -> Exported:
    """Write the chosen episodes of ``store`` to the folder ``to``, which must not be there yet.

    The store is only read, as it is now: what arrives meanwhile is not exported.

    Args:
        store: its folder; of a run: RUN/store.
        to: the folder that appears.
        format: a key of ``format.FORMATS``.
        choice: of robots, sessions and episodes, and their order.
        video: colour images as lossy video (LeRobot alone).
        min_free_bytes: room of the disk that is left free.
        on_progress: called after each step with the steps that were written, and the bytes of
            the store that were read, of how many.

    Raises:
        RecordingError: with what to do; nothing is then at ``to``.
        StoreError: where there is no store.
    """
    if format not in FORMATS:
        raise RecordingError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    numbers = EpisodeNumbers(choice.episodes)
    store = existing_store(store)
    if Path(to).absolute().is_relative_to(store.absolute()):
        raise RecordingError(f"{to} is within the store {store}; choose a place outside with --to")
    with reading(store) as ledger:
        sessions = choose(store, ledger, choice)
        named = places_of(store, ledger, numbers.names, sessions)
        if numbers.only_names:
            sessions = [s for s in sessions if s.session in {session for session, _ in named}]
        with UnfinishedFolder(to, min_free_bytes=min_free_bytes) as folder:
            spec, samples = _samples(store, ledger, sessions)
            writer = open_writer(format, folder.path, spec, video=video)
            found = Exported(folder.place, sessions=len(sessions))
            found.removed = folder.path if folder.removed else None
            folder.check_room(_needed(writer, sessions, samples) if numbers.all else 0)
            run = _Run(found, folder, on_progress, sum(session.bytes for session in sessions))
            reader = EpisodeReader(
                store,
                ledger,
                sessions,
                numbers,
                named=named,
                spec=spec if FORMATS[format].one_spec else None,
                on_chunk=run.on_chunk,
            )
            _write(reader, writer, numbers, run)
            found.bytes = sum(p.stat().st_size for p in folder.path.rglob("*") if p.is_file())
            folder.finish()
        return found


class _Run:
    """Counts along, and looks at the room of the disk now and then."""

    def __init__(
        self,
        found: Exported,
        folder: UnfinishedFolder,
        on_progress: Callable[[int, int, int], object],
        total: int,
    ) -> None:
        self.found, self._folder, self._on_progress = found, folder, on_progress
        self._read, self._chunks, self._total = 0, 0, total

    def on_chunk(self, row: ChunkRow) -> None:
        self._read += row.bytes
        if self._chunks % _LOOK_CHUNKS == 0:
            self._folder.check_room()
        self._chunks += 1

    def on_step(self) -> None:
        self.found.steps += 1
        self._on_progress(self.found.steps, self._read, self._total)


def _write(reader: EpisodeReader, writer: Writer, numbers: EpisodeNumbers, run: _Run) -> None:
    """Write every wanted episode, and what can only be known at the end."""
    found = run.found
    try:
        for episode in reader:
            writer.add(episode, run.on_step)
            found.episodes += 1
        _check_found(reader, numbers, found)
        writer.close()
    except BaseException:
        with contextlib.suppress(Exception):  # such as a disk that is still full
            writer.abandon()
        raise
    found.broken, found.left_out = reader.broken, reader.left_out


def _check_found(reader: EpisodeReader, numbers: EpisodeNumbers, found: Exported) -> None:
    missing = numbers.beyond(reader.seen)
    if missing is not None and (numbers.last is None or reader.seen <= numbers.last):
        raise RecordingError(
            f"there is no episode {missing}: the choice has {reader.seen}, from 0 on"
        )
    if not found.episodes:
        reasons = ", ".join(f"{n} steps {why}" for why, n in reader.left_out.most_common())
        raise RecordingError(f"nothing could be exported ({reasons or 'no episodes'})")


def _samples(
    root: Path, ledger: Ledger, sessions: Sequence[ChosenSession]
) -> tuple[Spec, list[tuple[Spec, list[Step]]]]:
    """Find the spec that most steps have, by a chunk of each session, and some of these."""
    counts: Counter[str] = Counter()
    specs: dict[str, Spec] = {}
    samples = []
    for number, session in enumerate(sessions):
        for row in rows_of_session(ledger, session):
            try:
                meta, steps = decode_chunk(read_stored(chunk_path(root, row.key), row))
            except Exception:  # it is counted when it is to be exported
                continue
            text = meta.spec.model_dump_json()
            specs[text] = meta.spec
            counts[text] += session.steps
            if number % max(1, len(sessions) // _SAMPLES) == 0:
                samples.append((meta.spec, list(islice(steps, _SAMPLE_STEPS))))
            break
    if not counts:
        raise RecordingError(
            f"{root}: no chunk of the choice can be read; `wm store verify` says more"
        )
    return specs[counts.most_common(1)[0][0]], samples


def _needed(
    writer: Writer, sessions: Sequence[ChosenSession], samples: Sequence[tuple[Spec, list[Step]]]
) -> int:
    """Guess the bytes of the export from what the samples take."""
    size = sum(writer.estimate(steps, spec) for spec, steps in samples)
    taken = sum(len(steps) for _, steps in samples)
    return size * sum(session.steps for session in sessions) // taken
