"""Imports recordings of other systems into the store of a run."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wm_core.contract.errors import RecordingError
from wm_core.recordings.formats import reader, recordings_below
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.source import Source
from wm_core.recordings.write_store import MIN_FREE_BYTES, Written, check_name, write_store
from wm_core.store.disk import free_bytes, size_text


@dataclass(frozen=True)
class ImportedRecording:
    """Says what became of one recording."""

    path: Path
    format: str
    robot: str  #: the name that its steps are stored under
    written: Written
    left_out: Counter[str]  #: messages or steps by reason
    notes: tuple[str, ...]  #: what else a person should know of it


def import_recordings(
    paths: Sequence[Path],
    root: Path,
    options: ReadOptions,
    *,
    on_recording: Callable[[Path, str], object] = lambda path, name: None,
    on_step: Callable[[], object] = lambda: None,
    on_warning: Callable[[Path, str], object] = lambda path, text: None,
) -> Iterator[ImportedRecording]:
    """Import every recording in ``paths`` into the store of the run folder ``root``.

    All of them are opened, and so looked at, before the first step is written.

    Args:
        paths: recordings, or folders of some.
        root: a run folder; its store is made where it is not there.
        options: how they are read.
        on_recording: called with path and format before each is read.
        on_step: called after each step.
        on_warning: called before a recording is read that the disk may be too small for.

    Raises:
        RecordingError: for what cannot be read, or does not fit the options.
    """
    listed = [recording for path in paths for recording in recordings_below(path)]
    found = {path.resolve(): (path, name) for path, name in listed}.values()  # each once
    sources = [(path, name, reader(name).open_source(path, options)) for path, name in found]
    for path, _, source in sources:
        with _named(path):
            check_name(source.name)
    _refuse_overlaps([(path, source) for path, _, source in sources])
    for path, name, source in sources:
        on_recording(path, name)
        for text in _room(source, root):
            on_warning(path, text)
        written = write_store(source, root / "store", on_step=on_step)
        notes = (*_nothing(source, written, options), *getattr(source, "notes", ()))
        yield ImportedRecording(path, name, source.name, written, source.left_out, notes)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the recording's path before what is wrong with it."""
    try:
        yield
    except RecordingError as error:
        raise RecordingError(f"{path}: {error}") from error


def _nothing(source: Source, written: Written, options: ReadOptions) -> tuple[str, ...]:
    """Say so where the options leave nothing of a recording that has something."""
    span = getattr(source, "span_ns", None)
    if written.steps or (options.from_s is None and options.until_s is None):
        return ()
    if span is not None and span[0] > span[1]:
        end_s = (span[1] - span[0]) * 1e-9 + (options.from_s or 0.0)
        return (f"it ends {end_s:.1f} s after its begin, before --from {options.from_s:g}",)
    return ("no step lies between --from and --until",)


def _refuse_overlaps(sources: Sequence[tuple[Path, Source]]) -> None:
    """Raise ``RecordingError`` where one robot would have done two things at the same time."""
    spans = [
        (source.name, *span, path)
        for path, source in sources
        if (span := getattr(source, "span_ns", None)) is not None and span[0] < span[1]
    ]
    spans.sort(key=lambda s: s[:3])
    for before, after in itertools.pairwise(spans):
        if before[0] == after[0] and after[1] < before[2]:
            shared_s = (min(before[2], after[2]) - after[1]) * 1e-9
            raise RecordingError(
                f"{before[3]} and {after[3]} were recorded at the same time, {shared_s:.1f} s of "
                f"it, and both would be of the robot {before[0]!r}: import one of them, cut one "
                "by --from or --until, or import them apart, each with its own --name"
            )


def _room(source: Source, root: Path) -> tuple[str, ...]:
    """Say so where the disk may be too small for what is read."""
    expected = getattr(source, "expected_bytes", 0)
    free = free_bytes(root)
    if free is None or expected <= free - MIN_FREE_BYTES:
        return ()
    return (
        f"it takes up to {size_text(expected)} before it is packed, and {size_text(free)} are "
        f"free below {root}",
    )
