"""Reads LeRobot sets, versions 2.0, 2.1 and 3.0: parquet tables with videos or images.

A row holds an observation, the action that was chosen at it, and as ``next.reward`` what that
action earned.  Sets that `wm data export` wrote carry every field of a Step and are read back as
they were.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from wm_core.contract.errors import RecordingError
from wm_core.contract.inputs import ImageSpec, Vector
from wm_core.contract.spec import Spec
from wm_core.recordings.options import OF_TABLES, ReadOptions
from wm_core.recordings.source import Source
from wm_core.recordings.tables.actions import ActionRange, to_actions
from wm_core.recordings.tables.images import image_spec
from wm_core.recordings.tables.layout import (
    column_or_none,
    known_column,
    make_spec,
    number_names,
    robot_name,
    vector_of,
)
from wm_core.recordings.tables.lerobot_files import SetCamera, SetEpisode, SetFiles, frame_shape
from wm_core.recordings.tables.lerobot_meta import CAMERAS, INFO, Meta, SetFeature, read_meta
from wm_core.recordings.tables.own import COLUMNS, NEEDED, exported_rows, is_plain, read_spec
from wm_core.recordings.tables.rows import Rows, earlier
from wm_core.recordings.tables.source import NO_REWARD, TableSource
from wm_core.recordings.tables.target import (
    TargetRobot,
    check_target_rate,
    chosen_columns,
    target_robot,
)

_INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")
_NUMBERS = ("float", "int", "uint", "bool")  # how the dtypes of columns of numbers begin
_TASK = 200  # characters of the tasks' names


def recognise(path: Path) -> bool:
    """Tell whether ``path`` is the folder of a LeRobot set."""
    return (path / INFO).is_file() and (path / "data").is_dir()


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a LeRobot set; raises ``RecordingError`` for damage and for columns that do not fit."""
    options.check_taken(OF_TABLES, path, "is a table, and some options are of bags")
    meta = read_meta(path)
    if options.fps is not None and options.fps != meta.fps:
        raise RecordingError(
            f"{path / INFO} says {meta.fps:g} fps; leave out --fps {options.fps:g}"
        )
    tasks = dict.fromkeys(t for entry in meta.entries for t in entry.tasks)
    own = meta.own if meta.own and is_plain(options, path) else {}
    reader = _Own(meta, own) if own else _Mapped(meta, options)
    name = robot_name(str(own.get("robot") or meta.robot or path.name), "lerobot")
    name = reader.target.name if reader.target else name
    return TableSource(
        name=options.name or name,
        task=options.task or str(own.get("task") or "; ".join(tasks)[:_TASK]),
        spec=reader.spec,
        files=[*meta.files, *reader.files.paths],
        options=options,
        rows=reader.rows,
        notes=[*reader.notes, *([_several(tasks)] if len(tasks) > 1 else [])],
        steps=sum(entry.length for entry in meta.entries),
    )


def _several(tasks: Iterable[str]) -> str:
    return f"{len(list(tasks))} tasks in it, recorded together under one name; --task names them"


class _Own:
    """Reads a set that `wm data export` wrote."""

    target: TargetRobot | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, meta: Meta, own: Mapping[str, object]) -> None:
        features = own.get("features")
        self.spec = read_spec(own.get("spec"), meta.root)
        if not isinstance(features, dict) or set(features) != set(self.spec.inputs):
            raise RecordingError(f"{meta.root}: its wm_ros.json does not name every observation")
        self._features = {str(k): str(v) for k, v in features.items()}
        self._columns = [name for name in COLUMNS if name in meta.features]
        if missing := [name for name in NEEDED if name not in meta.features]:
            raise RecordingError(f"{meta.root}: its columns {missing} are gone")
        cameras = {
            self._features[name]: SetCamera(name, spec, frame_shape(meta, self._features[name]))
            for name, spec in self.spec.images.items()
        }
        vectors = [self._features[name] for name in self.spec.vectors]
        self.files = SetFiles(meta, [*self._columns, *vectors], cameras)

    def rows(self, left_out: Counter[str]) -> Iterator[Rows]:
        for episode in self.files.episodes():
            yield exported_rows(
                episode.where,
                self.spec,
                {name: episode.column(name) for name in self._columns},
                {name: episode.column(self._features[name]) for name in self.spec.vectors},
                self.files.images(episode),
            )


class _Mapped:
    """Reads any other set: columns become observations, actions and rewards."""

    def __init__(self, meta: Meta, options: ReadOptions) -> None:
        self._meta, self._options = meta, options
        where, features = meta.root, meta.features
        numbers = [n for n, f in features.items() if f.dtype.startswith(_NUMBERS)]
        usual_action = next((n for n in ("action", "actions") if n in features), "action")
        self._action = known_column(where, options.action or usual_action, features, what="action")
        self._reward = column_or_none(
            where, options.reward, ("next.reward", "reward"), numbers, what="reward"
        )
        self._done = column_or_none(
            where, options.done, ("next.terminated", "next.done"), numbers, what="done"
        )
        self.notes = [] if self._reward else [NO_REWARD]
        self._truncated = "next.truncated" if "next.truncated" in numbers else None
        taken = {self._action, self._reward, self._done, *_INDICES}
        known = [n for n in features if n in numbers or features[n].dtype in CAMERAS]
        known = [n for n in known if n not in taken and not n.startswith("next.")]
        usual = [name for name in known if _is_usual(name, features[name])]
        self.target = target_robot(options)
        names = chosen_columns(where, known, usual, options, self.target)
        cameras: dict[str, SetCamera] = {}
        self._vectors: dict[str, str] = {}
        vectors = {}
        for column, name in names.items():
            feature = features[column]
            if feature.dtype in CAMERAS:
                shape = frame_shape(meta, column)
                spec = (
                    self.target.image(name, column)
                    if self.target
                    else image_spec(shape, options, column)
                )
                cameras[column] = SetCamera(name, spec, shape)
            else:
                size = int(np.prod(feature.shape))
                vectors[name] = (
                    self.target.vector(name, size, column)
                    if self.target
                    else vector_of(column, size, number_names(feature.names, size))
                )
                self._vectors[column] = name
        also = [self._action, self._reward, self._done, self._truncated]
        columns = [*self._vectors, *(name for name in also if name)]
        self.files = SetFiles(meta, columns, cameras)
        self.spec = self._spec({c.name: c.spec for c in cameras.values()}, vectors)

    def _spec(self, images: dict[str, ImageSpec], vectors: dict[str, Vector]) -> Spec:
        if self.target:
            check_target_rate(self._meta.root / INFO, self._meta.fps, self.target)
            action, period_s = self.target.spec.action, self.target.spec.period_s
            return make_spec(self._meta.root, images, vectors, action, period_s)
        seen = ActionRange(f"{self._meta.root}, {self._action}")
        for episode in self.files.episodes():
            seen.add(episode.column(self._action))
        feature = self._meta.features[self._action]
        size = int(np.prod(feature.shape))
        action = seen.spec(self._options, number_names(feature.names, size))
        self.notes += seen.notes(self._options, action)
        return make_spec(self._meta.root, images, vectors, action, 1.0 / self._meta.fps)

    def rows(self, left_out: Counter[str]) -> Iterator[Rows]:
        for episode in self.files.episodes(left_out):
            action, clipped = to_actions(
                episode.column(self._action), self.spec.action, episode.where
            )
            begins = np.arange(episode.steps) == 0
            if self._options.action_timing == "led":
                action, clipped = earlier(action, begins), earlier(clipped, begins)
            earned = None
            if self._reward:
                earned = episode.column(self._reward).reshape(-1).astype(np.float64)
                if self._options.reward_timing == "arrived":
                    earned = earlier(earned, begins)
            yield Rows(
                where=episode.where,
                time_s=episode.time_s,
                action=action,
                vectors={
                    name: _vector(episode.column(column), self.spec.vectors[name], episode.where)
                    for column, name in self._vectors.items()
                },
                images=self.files.images(episode),
                earned=earned,
                terminal=self._terminal(episode, left_out),
                clipped=clipped,
            )

    def _terminal(self, episode: SetEpisode, left_out: Counter[str]) -> np.ndarray | None:
        """Tell whether nothing can follow the last row, (T,) bool."""
        if not self._done or self._options.done_means == "truncated":
            return None
        done = episode.column(self._done).reshape(-1) != 0
        early = int(done[:-1].sum())
        if early:
            left_out["done_before_the_end"] += early
        done[:-1] = False
        if self._truncated:
            done &= episode.column(self._truncated).reshape(-1) == 0
        return done


def _is_usual(name: str, feature: SetFeature) -> bool:
    """Tell whether a column is taken as an observation where nothing was said."""
    if feature.dtype in CAMERAS:
        return True
    named = name.startswith("observation.") or name in ("observation", "state")
    return named and len(feature.shape) == 1 and not name.endswith("_is_pad")


def _vector(values: np.ndarray, spec: Vector, where: str) -> np.ndarray:
    flat = values.reshape(len(values), -1)
    if flat.shape[1] != spec.size and len(flat):
        raise RecordingError(
            f"{where}: expected {spec.size} numbers, as info.json says, got {flat.shape[1]}"
        )
    with np.errstate(over="ignore"):
        return flat.reshape(-1, spec.size).astype(np.float32)
