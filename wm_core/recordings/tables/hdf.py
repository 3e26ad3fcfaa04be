"""Reads HDF5 episodes: many in a file as robomimic has them, or one in a file as ALOHA has them.

robomimic: ``data/demo_N`` with ``obs``, ``actions``, ``rewards``, ``dones`` and mostly
``next_obs``, whose last row is what was seen after the last action.  ALOHA: ``observations`` and
``action`` at the root.  The reward of a row was earned by its action.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError
from wm_core.recordings.options import OF_TABLES, ReadOptions
from wm_core.recordings.source import Source
from wm_core.recordings.tables.arrays import ArrayLike, TableEpisode, array_source
from wm_core.recordings.tables.hdf_files import (
    CompressedColumn,
    H5Column,
    LongerColumn,
    columns_below,
    group_of,
    is_hdf5,
    opened_hdf5,
)
from wm_core.recordings.tables.layout import (
    column_or_none,
    known_column,
    robot_name,
)
from wm_core.recordings.tables.target import chosen_columns, target_robot

_OBSERVATIONS = ("obs", "observations", "observation")
_ACTIONS = ("actions", "action")


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is an HDF5 file of episodes, or a folder with an episode in each."""
    if is_hdf5(path):
        return True
    try:
        if (path / "metadata.json").exists():  # of Minari
            return False
        files = _files(path) if path.is_dir() else []
        return len(files) > 1 and all(not _has_demos(file) for file in files[:2])
    except (OSError, RecordingError):
        return False


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open HDF5 episodes; raises ``RecordingError`` where columns do not fit."""
    options.check_taken(OF_TABLES, path, "is a table, and some options are of bags")
    return _Hdf5Set(path, options).source()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.iterdir() if is_hdf5(p))


def _has_demos(path: Path) -> bool:
    with opened_hdf5(path) as file:
        return group_of(file, "data") is not None


def _number(name: str) -> tuple[int, str]:
    found = re.search(r"(\d+)$", name)
    return (int(found[1]) if found else -1, name)


class _Hdf5Set:
    """Holds what the first episode says of all of them."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._options, self._files = path, options, _files(path)
        self._about: dict[str, Any] = {}
        first = None
        for where, group in self._groups():
            if first is None:
                first = where, list(columns_below(group, where))
        if first is None:
            raise RecordingError(
                f"{path}: expected episodes data/demo_N with obs and actions, or observations and "
                "action at the root, found neither"
            )
        where, columns = first
        self._seen = next((n for n in _OBSERVATIONS if any(_below(c, n) for c in columns)), "")
        beside = [c for c in columns if "/" not in c]
        usual_action = next((n for n in _ACTIONS if n in beside), "actions")
        action = options.action or usual_action
        self._action = known_column(where, action, columns, what="action")
        self._reward = column_or_none(
            where, options.reward, ("rewards", "reward"), columns, what="reward"
        )
        self._done = column_or_none(
            where, options.done, ("dones", "done", "terminals"), columns, what="done"
        )
        known = [c[len(self._seen) + 1 :] for c in columns if self._seen and _below(c, self._seen)]
        self._target = target_robot(options)
        self._names = chosen_columns(where, known, known, options, self._target)

    def source(self) -> Source:
        options, about = self._options, self._about
        settings = about.get("env_kwargs")
        rate = settings.get("control_freq") if isinstance(settings, dict) else None
        good = isinstance(rate, int | float) and 0 < rate <= 1000
        fps = options.fps or (rate if good else None)
        return array_source(
            self._path,
            name=options.name
            or (self._target.name if self._target else robot_name(self._path.stem, "hdf5")),
            task=options.task or str(about.get("env_name") or "")[:200],
            files=self._files,
            options=options,
            names=self._names,
            episodes=self._episodes,
            actions=self._actions,
            fps=fps,
            target=self._target,
            unit_actions=True,
            reward_arrives=False,
        )

    def _groups(self) -> Iterator[tuple[str, Any]]:
        """Yield each episode's place and group, while its file is open."""
        for path in self._files:
            with opened_hdf5(path) as file:
                data = group_of(file, "data")
                if data is None:
                    if any(name in file for name in _OBSERVATIONS):
                        yield str(path), file
                    continue
                with suppress(ValueError, TypeError, AttributeError):
                    self._about = dict(json.loads(data.attrs.get("env_args", "{}")))
                for name in sorted(data.keys(), key=_number):
                    group = group_of(data, name)
                    if group is not None:
                        yield f"{path}, {name}", group

    def _actions(self) -> Iterator[np.ndarray]:
        for where, group in self._groups():
            yield self._column(columns_below(group, where), self._action, where)[:]

    def _episodes(self) -> Generator[TableEpisode, None, None]:
        for where, group in self._groups():
            columns = columns_below(group, where)
            obs: dict[str, ArrayLike] = {
                key: _picture(self._column(columns, f"{self._seen}/{key}", where), key)
                for key in self._names
            }
            following = {key: columns.get(f"next_{self._seen}/{key}") for key in self._names}
            if all(column is not None and len(column) for column in following.values()):
                obs = {
                    key: LongerColumn(obs[key], _picture(column, key), f"{where}, {key}")
                    for key, column in following.items()
                    if column is not None
                }
            read = self._reader(columns, where)
            yield TableEpisode(
                where=where,
                obs=obs,
                action=self._column(columns, self._action, where)[:],
                reward=read(self._reward),
                ends=read(self._done),
            )

    def _reader(
        self, columns: Mapping[str, H5Column], where: str
    ) -> Callable[[str | None], np.ndarray | None]:
        return lambda name: None if name is None else self._column(columns, name, where)[:]

    @staticmethod
    def _column(columns: Mapping[str, H5Column], name: str, where: str) -> H5Column:
        known_column(where, name, columns, what="episode")
        return columns[name]


def _below(column: str, group: str) -> bool:
    return column.startswith(f"{group}/")


def _picture(column: H5Column, name: str) -> ArrayLike:
    """Decode a column of compressed images; any other is returned as it is."""
    flat = column.dtype == np.uint8 and len(column.shape) == 2
    named = "image" in name or "cam" in name
    return CompressedColumn(column) if flat and named and len(column) else column
