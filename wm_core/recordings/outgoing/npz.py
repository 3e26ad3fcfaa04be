"""Writes each episode as an archive of NumPy arrays, with the names that ``Episodes`` takes.

Arrays are collected in files, so that an episode of any length takes a bounded memory.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError
from wm_core.contract.spec import Spec
from wm_core.contract.step import NUMBERS, Step
from wm_core.recordings.outgoing.episodes import ChosenEpisode

_IN_MEMORY_BYTES = 1 << 18  # of one array; what is beyond lies in a file
_LEVEL = 1  # of deflate: three times as fast as the usual one, for a tenth more bytes
_TEXTS = ("spec", "robot", "session", "task")
#: arrays of an episode beside its inputs
FIXED = ("action", *NUMBERS, "stamp_ns", "requested_action", "has_requested_action")


def writer(name: str, folder: Path, spec: Spec, *, video: bool) -> NpzWriter:
    """Open a writer of archives; see ``format.open_writer``."""
    if video:
        raise RecordingError("npz holds arrays, no video; leave --video away")
    return NpzWriter(folder)


class NpzWriter:
    """Writes ``episode-<number>.npz`` for each episode.

    Args:
        folder: that takes the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, episode: ChosenEpisode, on_step: Callable[[], object]) -> None:
        """Write one episode."""
        with contextlib.ExitStack() as files:
            columns = _columns(episode.spec, self._folder, files)
            for step in episode.steps:
                for name, value in step_arrays(step, episode.spec).items():
                    columns[name].append(value)
                on_step()
            path = self._folder / f"episode-{episode.number:06d}.npz"
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
                for name, column in columns.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as out:
                        column.write(out)
                texts = (episode.spec.model_dump_json(), episode.robot, episode.session)
                for name, text in zip(_TEXTS, (*texts, episode.task), strict=True):
                    with archive.open(f"{name}.npy", "w") as out:
                        np.lib.format.write_array(out, np.array(text), allow_pickle=False)

    def close(self) -> None:
        """Do nothing: each archive is whole by itself."""

    def abandon(self) -> None:
        """Do nothing: no file is open between episodes."""

    def estimate(self, steps: Sequence[Step], spec: Spec) -> int:
        """Guess how many bytes ``steps`` take, by packing their images."""
        size = 0
        for step in steps:
            for value in step_arrays(step, spec).values():
                size += len(zlib.compress(value.tobytes(), _LEVEL))
        return size


def step_arrays(step: Step, spec: Spec) -> dict[str, np.ndarray]:
    """Give everything that is stored of a step, as arrays of one step each, by name.

    Observations have the shape of their input, actions (A,), the others ().
    """
    requested = step.requested_action
    missing = np.full(spec.action.size, np.nan, np.float32)
    return {
        **{key: np.asarray(step.obs[key], sensor.dtype) for key, sensor in spec.inputs.items()},
        "action": np.asarray(step.action, np.float32),
        **{name: np.asarray(getattr(step, name), dtype) for name, dtype in NUMBERS.items()},
        "stamp_ns": np.asarray(step.stamp_ns, np.int64),
        "requested_action": missing if requested is None else np.asarray(requested, np.float32),
        "has_requested_action": np.asarray(requested is not None),
    }


class _Column:
    """Collects one array (T, *shape), in a file where it is long."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], file: Any) -> None:
        self._shape, self._dtype, self._file, self._steps = shape, dtype, file, 0

    def append(self, value: np.ndarray) -> None:
        self._file.write(value.tobytes())
        self._steps += 1

    def write(self, out: Any) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._steps, *self._shape),
        }
        np.lib.format.write_array_header_1_0(out, header)
        self._file.seek(0)
        shutil.copyfileobj(self._file, out)


def _columns(spec: Spec, folder: Path, files: contextlib.ExitStack) -> dict[str, _Column]:
    if taken := spec.inputs.keys() & {*FIXED, *_TEXTS}:
        raise RecordingError(
            f"inputs {sorted(taken)} have the names of other arrays of an episode; export to "
            "rosbag2 or mcap"
        )
    blank = Step(spec.zeros(), np.zeros(spec.action.size, np.float32), 0.0, False, False, False)
    return {
        name: _Column(
            value.shape,
            value.dtype,
            files.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES, dir=str(folder))),
        )
        for name, value in step_arrays(blank, spec).items()
    }
