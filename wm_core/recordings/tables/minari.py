"""Reads Minari sets from their files: HDF5, Arrow or Parquet, without the library itself.

An episode has one observation more than it has actions, so that each reward finds the observation
that it arrived with.  The set says what its spaces are; nothing has to be guessed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError, shown
from wm_core.contract.spec import ActionSpec
from wm_core.recordings.options import OF_TABLES, ReadOptions
from wm_core.recordings.source import Source
from wm_core.recordings.tables.actions import action_spec, choices_of
from wm_core.recordings.tables.arrays import ArrayLike, TableEpisode, array_source
from wm_core.recordings.tables.damage import unreadable
from wm_core.recordings.tables.hdf_files import (
    CompressedColumn,
    H5Column,
    columns_below,
    group_of,
    opened_hdf5,
)
from wm_core.recordings.tables.layout import known_column, robot_name
from wm_core.recordings.tables.minari_arrow import read_arrow
from wm_core.recordings.tables.target import chosen_columns, target_robot

_TAKEN = OF_TABLES - {"action", "reward", "done"}  # of the options
_META, _MAIN = "metadata.json", "main_data.hdf5"
_SPACE = ("Box", "Discrete", "MultiDiscrete", "MultiBinary")  #: of observations that are numbers


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is a Minari set, or its folder ``data``."""
    try:
        about = json.loads((_data(path) / _META).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and "observation_space" in about


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a Minari set; raises ``RecordingError`` where files are damaged or do not fit."""
    options.check_taken(_TAKEN, path, "is a Minari set, which names its own columns")
    return _MinariSet(path, options).source()


def _data(path: Path) -> Path:
    return path / "data" if (path / "data" / _META).is_file() else path


class _MinariSet:
    """Holds what the set says of itself."""

    def __init__(self, path: Path, options: ReadOptions) -> None:
        self._path, self._options, self._root = path, options, _data(path)
        meta = self._root / _META
        try:
            self._about = json.loads(meta.read_bytes())
            self._spaces = _leaves(_space(self._about["observation_space"]))
            self._action = _space(self._about["action_space"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise unreadable(meta, "description of a Minari set", error) from None
        self._format = str(self._about.get("data_format", "hdf5"))
        if self._format not in ("hdf5", "arrow", "parquet"):
            raise RecordingError(
                f"{meta}: expected data_format hdf5, arrow or parquet, got "
                f"{shown(self._format, 40)!r}"
            )
        known = [key for key, space in self._spaces.items() if space.get("type") in _SPACE]
        self._target = target_robot(options)
        self._names = chosen_columns(path, known, known, options, self._target)

    def source(self) -> Source:
        options, about = self._options, self._about
        name = str(about.get("dataset_id") or self._path.name)
        return array_source(
            self._path,
            name=options.name
            or (self._target.name if self._target else robot_name(name, "minari")),
            task=options.task or name[:200],
            files=[self._root / _META, *self._files()],
            options=options,
            names=self._names,
            episodes=self._episodes,
            actions=lambda: (episode.action for episode in self._episodes()),
            fps=options.fps,
            target=self._target,
            reward_arrives=False,
            action=_action_spec(self._path, self._action),
        )

    def _files(self) -> list[Path]:
        if self._format == "hdf5":
            return [self._root / _MAIN]
        folders = [p for p in self._root.iterdir() if p.is_dir() and re.fullmatch(r"\d+", p.name)]
        return [
            file
            for folder in sorted(folders, key=lambda p: int(p.name))
            for file in sorted(folder.glob(f"*.{self._format}"))
        ]

    def _episodes(self) -> Generator[TableEpisode, None, None]:
        for where, columns in self._columns():
            start = self._action.get("start", 0)
            actions = self._column(columns, "actions", where)[:]
            yield TableEpisode(
                where=where,
                obs={key: self._observation(columns, key, where) for key in self._names},
                action=actions - np.asarray(start, actions.dtype) if start else actions,
                reward=self._column(columns, "rewards", where)[:],
                ends=self._column(columns, "terminations", where)[:],
            )

    def _columns(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield each episode's place and its columns, while its file is open."""
        if self._format != "hdf5":
            for path in self._files():
                yield str(path), read_arrow(path, {f"observations/{k}" for k in self._names})
            return
        path = self._root / _MAIN
        with opened_hdf5(path) as file:
            names = [name for name in file if re.fullmatch(r"episode_\d+", name)]
            for name in sorted(names, key=lambda n: int(n[8:])):
                group = group_of(file, name)
                if group is not None:
                    yield f"{path}, {name}", columns_below(group, str(path))

    def _observation(self, columns: Mapping[str, Any], key: str, where: str) -> ArrayLike:
        place = "observations" if key == _WHOLE else f"observations/{key}"
        column = self._column(columns, place, where)
        shape = tuple(self._spaces[key].get("shape") or ())
        if isinstance(column, H5Column):
            packed = len(shape) in (2, 3) and len(column.shape) <= 2
            return CompressedColumn(column) if packed and column.dtype.kind in "Ou" else column
        return column.reshape(len(column), *shape) if column.ndim == 2 else column

    @staticmethod
    def _column(columns: Mapping[str, Any], name: str, where: str) -> Any:
        known_column(where, name, columns, what="episode")
        return columns[name]


_WHOLE = "observation"  #: in the place of a key, where there is one observation without a name


def _space(said: Any) -> dict[str, Any]:
    """Read a space, which a set holds as JSON text or as what that says."""
    found = json.loads(said) if isinstance(said, str) else said
    if not isinstance(found, dict) or "type" not in found:
        raise ValueError(f"expected a space, got {shown(said, 60)}")
    return found


def _leaves(space: Mapping[str, Any], prefix: str = "") -> dict[str, dict[str, Any]]:
    """List the spaces of numbers in a space of dictionaries, as ``a/b``."""
    below = space.get("subspaces")
    if not isinstance(below, dict | list):
        return {prefix or _WHOLE: dict(space)}
    named = below if isinstance(below, dict) else {f"_index_{i}": s for i, s in enumerate(below)}
    found: dict[str, dict[str, Any]] = {}
    for key, part in named.items():
        found |= _leaves(part, f"{prefix}/{key}" if prefix else str(key))
    return found


def _action_spec(where: object, space: Mapping[str, Any]) -> ActionSpec | None:
    """Describe the actions of a space; None where it has no bounds: the data tells them then."""
    kind = space.get("type")
    if kind == "Discrete":
        return choices_of(where, [int(space["n"])])
    if kind in ("MultiDiscrete", "MultiBinary"):
        counts = np.ravel(space.get("nvec", [2] * int(space.get("n", 0)))).astype(int).tolist()
        return choices_of(where, counts)
    if kind != "Box":
        raise RecordingError(
            f"{where}: actions of {shown(kind, 40)} are not read, only of {', '.join(_SPACE)}"
        )
    low, high = (np.ravel(np.asarray(space[side], np.float64)) for side in ("low", "high"))
    size = math.prod(space.get("shape") or (1,))
    if len(low) != size or not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    return action_spec(where, low, high)
