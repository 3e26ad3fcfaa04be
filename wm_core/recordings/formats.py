"""The table of formats that can be imported; a reader's module is imported when it is needed.

To add a format, write a module with the functions of ``FormatReader`` and a row of ``READERS``.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

from wm_core.contract.errors import RecordingError
from wm_core.contract.files import siblings
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.source import Source

#: format -> (module with the functions of ``FormatReader``, what it reads)
READERS: dict[str, tuple[str, str]] = {
    "own bag": ("wm_core.recordings.own_bags", "rosbag2 and MCAP that wm data export wrote"),
    "bag": ("wm_ros.recorded.reader", "rosbag2 folders and MCAP files of ROS 2"),
    "lerobot": ("wm_core.recordings.tables.lerobot", "a LeRobot set, v2.0, v2.1 or v3.0"),
    "minari": ("wm_core.recordings.tables.minari", "a Minari set"),
    "hdf5": ("wm_core.recordings.tables.hdf", "HDF5 episodes, as of robomimic or ALOHA"),
    "npz": ("wm_core.recordings.tables.npz", "one or more npz files, an episode in each"),
}

UNFINISHED = ".unfinished"  #: ends the name of a folder that an export still writes


class FormatReader(Protocol):
    """Is the module of one format."""

    def recognise(self, path: Path) -> bool:
        """Tell whether ``path``, a file or a folder, is a recording of this format.

        It looks at names and at a few bytes, and never raises for what cannot be read.
        """

    def open_source(self, path: Path, options: ReadOptions) -> Source:
        """Open a recording that ``recognise`` knows.

        Raises:
            RecordingError: where it cannot be read as the options say.
        """


def reader(name: str) -> FormatReader:
    """Import the reader of the format ``name``, a key of ``READERS``."""
    return cast(FormatReader, importlib.import_module(READERS[name][0]))


def format_of(path: Path) -> str | None:
    """Name the format of ``path``; None where no reader knows it."""
    return next((name for name in READERS if reader(name).recognise(path)), None)


def recordings_below(path: Path) -> list[tuple[Path, str]]:
    """List the recordings in ``path`` with their formats: itself, or those below it, by name.

    Raises:
        RecordingError: where there is none, with the formats that are known.
    """
    if not path.exists():
        raise RecordingError(_missing(path))
    found = list(_walk(path))
    if not found:
        known = "; ".join(f"{name} ({about})" for name, (_, about) in READERS.items())
        raise RecordingError(f"{path}: found no recording in it; known formats: {known}")
    return found


def _missing(path: Path) -> str:
    """Say that ``path`` is not there, with what may be meant."""
    text = f"{path} does not exist; expected a recording or a folder of some"
    kept = Path(os.environ.get("MINARI_DATASETS_PATH", Path.home() / ".minari" / "datasets"))
    if not path.is_absolute() and (kept / path).is_dir():
        return f"{text}; a Minari set of that name is {kept / path}"
    near = difflib.get_close_matches(path.name, siblings(path), n=1)
    if near:
        return f"{text}; did you mean {path.with_name(near[0])}?"
    return f"{text}, which is on this machine: nothing is downloaded"


def _walk(path: Path) -> Iterator[tuple[Path, str]]:
    if path.name.endswith(UNFINISHED):
        return
    name = format_of(path)
    if name is not None:
        yield path, name
    elif path.is_dir() and not path.is_symlink():
        for entry in sorted(os.listdir(path)):
            yield from _walk(path / entry)
