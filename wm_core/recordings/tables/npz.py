"""Reads npz episodes: a file holds the arrays of one episode, a folder holds many files.

The keys are those of `wm_core.Episodes` and of the Dreamer papers' code: any observations, action,
reward, is_first, is_last, is_terminal.  The reward of a row arrived with its observation.  Files
that `wm data export` wrote carry every field of a Step, and are read back as they were.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from wm_core.contract.compare import differences
from wm_core.contract.errors import RecordingError, nearest
from wm_core.contract.spec import Spec
from wm_core.recordings.options import OF_TABLES, ReadOptions
from wm_core.recordings.source import Source
from wm_core.recordings.tables.arrays import TableEpisode, array_source, in_step
from wm_core.recordings.tables.damage import unreadable
from wm_core.recordings.tables.layout import column_or_none, known_column, robot_name
from wm_core.recordings.tables.own import STAMP, exported_rows, is_plain, read_spec
from wm_core.recordings.tables.rows import Rows
from wm_core.recordings.tables.source import TableSource
from wm_core.recordings.tables.target import chosen_columns, target_robot

_FLAGS = ("is_first", "is_last", "is_terminal")
_ABOUT = ("spec", "robot", "session", "task")  # texts of our exports
_NO_OBSERVATIONS = (
    *(*_FLAGS, *_ABOUT, "action", "reward", "discount", "is_intervention", "is_valid"),
    *("policy_version", "period_s", STAMP, "requested_action", "has_requested_action"),
)


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is an npz file or a folder with some."""
    return bool(_files(path))


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open npz episodes; raises ``RecordingError`` where keys or shapes do not fit."""
    options.check_taken(OF_TABLES, path, "is a table, and some options are of bags")
    return _NpzSet(path, _files(path), options).source()


def _files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return sorted(p for p in path.iterdir() if p.suffix == ".npz" and p.is_file())
        return [path] if path.suffix == ".npz" and path.is_file() else []
    except OSError:
        return []


class _NpzSet:
    """Holds what the first file says of all of them."""

    def __init__(self, path: Path, files: list[Path], options: ReadOptions) -> None:
        self._path, self._files, self._options = path, files, options
        with _opened(files[0]) as arrays:
            self._keys = list(arrays.files)
            text = {key: _array(files[0], arrays, key) for key in _ABOUT if key in self._keys}
            self._spec = _spec_text(files[0], arrays)
        self._text = {key: str(value) for key, value in text.items() if value.ndim == 0}
        self._check_specs()

    def source(self) -> TableSource:
        options = self._options
        name = options.name or self._text.get("robot") or robot_name(self._path.stem, "npz")
        task = options.task or self._text.get("task", "")
        if self._spec and is_plain(options, self._path):
            spec = read_spec(self._spec, self._files[0])
            return TableSource(
                name=name,
                task=task,
                spec=spec,
                files=self._files,
                options=options,
                rows=lambda left_out: self._own(spec),
            )
        where, keys = self._path, self._keys
        self._action = known_column(where, options.action or "action", keys, what="action")
        self._reward = column_or_none(where, options.reward, ["reward"], keys, what="reward")
        done = column_or_none(where, options.done, ["is_terminal"], keys, what="done")
        known = [k for k in keys if k not in (*_NO_OBSERVATIONS, self._action, self._reward, done)]
        usual = [k for k in known if not k.startswith("log_")]
        target = target_robot(options)
        self._names = chosen_columns(where, known, usual, options, target)
        name = options.name or (target.name if target else name)
        flag = "is_last" if options.done_means == "truncated" and options.done else "is_terminal"
        self._flags = {k: k for k in _FLAGS[:2] if k in keys} | ({flag: done} if done else {})
        return array_source(
            where,
            name=name,
            task=task,
            files=self._files,
            options=options,
            names=self._names,
            episodes=self._episodes,
            actions=self._actions,
            fps=options.fps,
            target=target,
            unit_actions=True,
            reward_arrives=True,
        )

    def _check_specs(self) -> None:
        """Refuse a file that was exported with another spec than the first."""
        first = self._files[0]
        for path in self._files[1:]:
            with _opened(path) as arrays:
                text = _spec_text(path, arrays)
            what = "" if text == self._spec else _difference(self._spec, text, first, path)
            if what:
                raise RecordingError(
                    f"{path}: recorded with another spec than {first.name} ({what}); import the "
                    "files of each spec apart, from a folder of their own"
                )

    def _actions(self) -> Iterator[np.ndarray]:
        for path in self._files:
            with _opened(path) as arrays:
                yield _array(path, arrays, self._action)

    def _episodes(self) -> Generator[TableEpisode, None, None]:
        for path in self._files:
            with _opened(path) as arrays:
                read = partial(_array, path, arrays)
                yield TableEpisode(
                    where=str(path),
                    obs={key: read(key) for key in self._names},
                    action=read(self._action),
                    reward=read(self._reward) if self._reward else None,
                    flags={flag: read(key) for flag, key in self._flags.items()},
                )

    def _own(self, spec: Spec) -> Iterator[Rows]:
        for path in self._files:
            with _opened(path) as arrays:
                columns = {key: _array(path, arrays, key) for key in arrays.files}
            missing = [key for key in spec.inputs if key not in columns]
            if missing:
                raise RecordingError(f"{path}: its spec names {missing}, which are not in it")
            vectors = {key: columns[key] for key in spec.vectors}
            frames = {key: columns[key] for key in spec.images}
            images = in_step(frames, spec, str(path), len(columns.get(STAMP, ())))
            yield exported_rows(str(path), spec, columns, vectors, images)


def _spec_text(path: Path, arrays: np.lib.npyio.NpzFile) -> str:
    """Read the spec, as JSON, of an episode that `wm data export` wrote; empty for any other."""
    if "spec" not in arrays.files or STAMP not in arrays.files:
        return ""
    found = _array(path, arrays, "spec")
    return str(found) if found.ndim == 0 else ""


def _difference(one: str, other: str, first: Path, path: Path) -> str:
    """Say in what the specs of two files differ; empty where they mean the same."""
    if not one or not other:
        return "one of them is no export of wm data"
    wanted, got = read_spec(one, first), read_spec(other, path)
    found = [*differences(wanted, got), *differences(got, wanted), "a name or a limit"]
    return "" if wanted == got else found[0]


@contextmanager
def _opened(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """Open an npz file; raises ``RecordingError`` where it is none."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            found = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise unreadable(path, "npz file", error) from None
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise RecordingError(f"{path}: expected an npz file, got a single array")
        yield stack.enter_context(found)


def _array(path: Path, arrays: np.lib.npyio.NpzFile, key: str) -> np.ndarray:
    """Read an array of a file; raises ``RecordingError`` where it is missing or damaged."""
    if key not in arrays.files:
        raise RecordingError(f"{path}: {nearest(key, arrays.files, what='key')}")
    try:
        found = np.asarray(arrays[key])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise RecordingError(f"{path}: {key!r} cannot be read: {error}") from None
    if found.ndim == 0 and key not in _ABOUT:
        raise RecordingError(
            f"{path}: {key!r} is one value and not one for each row; leave it out with --without"
        )
    return found
