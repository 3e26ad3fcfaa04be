"""Imports recordings of other systems into the store of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wm_core.recordings.formats import reader, recordings_below
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.write_store import Written, write_store


@dataclass(frozen=True)
class ImportedRecording:
    """Says what became of one recording."""

    path: Path
    format: str
    robot: str  #: the name that its steps are stored under
    written: Written
    left_out: Counter[str]  #: messages or steps by reason


def import_recordings(
    paths: Sequence[Path],
    root: Path,
    options: ReadOptions,
    *,
    on_recording: Callable[[Path, str], object] = lambda path, name: None,
    on_step: Callable[[], object] = lambda: None,
) -> Iterator[ImportedRecording]:
    """Import every recording in ``paths`` into the store of the run folder ``root``.

    All of them are opened, and so looked at, before the first step is written.

    Args:
        paths: recordings, or folders of some.
        root: a run folder; its store is made where it is not there.
        options: how they are read.
        on_recording: called with path and format before each is read.
        on_step: called after each step.

    Raises:
        RecordingError: for what cannot be read, or does not fit the options.
    """
    found = [recording for path in paths for recording in recordings_below(path)]
    sources = [(path, name, reader(name).open_source(path, options)) for path, name in found]
    for path, name, source in sources:
        on_recording(path, name)
        written = write_store(source, root / "store", on_step=on_step)
        yield ImportedRecording(path, name, source.name, written, source.left_out)
