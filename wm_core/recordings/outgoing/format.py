"""Defines what a format of an export is: a writer that takes episodes, and a table of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.recordings.outgoing.episodes import ChosenEpisode

VERSION = 1  #: of what an export says of itself
NAME = "wm_ros"  #: under which it says so


@dataclass(frozen=True)
class Format:
    """Describes one format."""

    module: str  #: with a function ``writer(folder, spec, **options) -> Writer``
    about: str
    one_spec: bool = False  #: whether all episodes have to be of one spec


FORMATS = {
    "lerobot": Format(
        "wm_core.recordings.outgoing.lerobot.dataset",
        "LeRobotDataset v3.0, with parquet",
        one_spec=True,
    ),
    "rosbag2": Format(
        "wm_core.recordings.outgoing.bags", "a rosbag2 with MCAP storage for each session"
    ),
    "mcap": Format("wm_core.recordings.outgoing.bags", "an MCAP file for each session"),
    "npz": Format("wm_core.recordings.outgoing.npz", "an archive of NumPy for each episode"),
}


class Writer(Protocol):
    """Writes episodes as files of one format into a folder."""

    def add(self, episode: ChosenEpisode, on_step: Callable[[], object]) -> None:
        """Write one episode, reading its steps to the end; ``on_step`` is called after each."""

    def close(self) -> None:
        """Write what can only be known at the end; no episode may follow."""

    def estimate(self, steps: Sequence[Step], spec: Spec) -> int:
        """Guess how many bytes ``steps`` take in this format."""

    def abandon(self) -> None:
        """Close open files as they are, after a failure; a second call does nothing."""


def open_writer(name: str, folder: Path, spec: Spec, *, video: bool) -> Writer:
    """Open the writer of a format.

    Args:
        name: a key of ``FORMATS``.
        folder: an empty one, which the writer fills.
        spec: that most steps have; the only one where the format holds one.
        video: images as lossy video, where the format has it.

    Raises:
        RecordingError: where a library is missing or the format does not have it.
    """
    module = importlib.import_module(FORMATS[name].module)
    return cast(Writer, module.writer(name, folder, spec, video=video))
