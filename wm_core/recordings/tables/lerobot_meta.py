"""Reads what a LeRobot set says of itself: its columns, and where each episode is.

Version 3 keeps many episodes in a file and says in tables which rows and which seconds of a video
are whose; versions 2.0 and 2.1 keep a file for each episode.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from wm_core.contract.errors import RecordingError, shown
from wm_core.recordings.libraries import import_library
from wm_core.recordings.tables.damage import unreadable

INFO = "meta/info.json"
OWN = "meta/wm_ros.json"  #: of a set that `wm data export` wrote
VERSIONS = ("v2.0", "v2.1", "v3.0")
CAMERAS = ("video", "image")  #: dtypes of a camera's feature
_FIELD = re.compile(r"\{(\w+)(?::0?(\d{1,2})d)?\}")
_MAX_TEXT = 256 << 20  # bytes of a file of JSON


class SetFeature(NamedTuple):
    """Describes one column, or one camera, of a set."""

    dtype: str
    shape: tuple[int, ...]
    names: Any = None  #: of the axes of an image, or of the numbers of a vector
    is_depth: bool = False


class Clip(NamedTuple):
    """Says where the frames of an episode are."""

    path: Path
    from_s: float | None = None  #: in the video; None: the whole of it
    to_s: float | None = None


@dataclass(frozen=True)
class SetEntry:
    """Says where an episode is."""

    index: int
    length: int  #: rows
    tasks: tuple[str, ...]
    data: Path
    clips: Mapping[str, Clip]  #: by the camera's feature


@dataclass(frozen=True)
class Meta:
    """Holds what a set says of itself."""

    root: Path
    version: str
    fps: float
    robot: str
    features: Mapping[str, SetFeature]
    entries: tuple[SetEntry, ...]
    own: Mapping[str, Any] | None = None  #: what `wm data export` wrote beside it
    files: tuple[Path, ...] = field(default=())  #: that were read to know this

    @property
    def cameras(self) -> list[str]:
        return [name for name, f in self.features.items() if f.dtype in CAMERAS]


def read_meta(root: Path) -> Meta:
    """Read the meta files of a set.

    Raises:
        RecordingError: for files that are missing or damaged, or another version.
    """
    path = root / INFO
    info = _json(path)
    version = info.get("codebase_version") if isinstance(info, dict) else None
    if not isinstance(version, str) or not re.fullmatch(r"v[23](\.\d+)*", version):
        raise RecordingError(
            f"{path}: expected codebase_version {', '.join(VERSIONS)}, got {shown(version, 40)!r}"
            + ("; convert it with the scripts of LeRobot" if version else "")
        )
    fps, features = info.get("fps"), info.get("features")
    if not isinstance(fps, int | float) or not 0 < fps <= 1000:
        raise RecordingError(f"{path}: expected fps above 0 and at most 1000, got {fps!r}")
    if not isinstance(features, dict) or not features:
        raise RecordingError(f"{path}: expected features, got {shown(features, 60)}")
    own = root / OWN
    read = _V3(root, info) if version.startswith("v3") else _V2(root, info)
    found = {name: _feature(path, name, said) for name, said in features.items()}
    entries = tuple(read.entries([n for n, f in found.items() if f.dtype == "video"]))
    twice = [index for index, n in Counter(entry.index for entry in entries).items() if n > 1]
    if twice:
        raise RecordingError(f"{root}: its meta files list episode {twice[0]} more than once")
    ours = _json(own) if own.is_file() else None
    if ours is not None and not isinstance(ours, dict):
        raise RecordingError(f"{own}: expected an object of JSON, got {shown(ours, 60)}")
    return Meta(
        root=root,
        version=version,
        fps=float(fps),
        robot=str(info.get("robot_type") or ""),
        features=found,
        entries=entries,
        own=ours,
        files=tuple(sorted(p for p in (root / "meta").rglob("*") if p.is_file())),
    )


def _feature(path: Path, name: str, said: Any) -> SetFeature:
    shape = said.get("shape") if isinstance(said, dict) else None
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise RecordingError(f"{path}: feature {name!r}: expected a shape, got {shown(said, 80)}")
    abouts = [about for key in ("video_info", "info") if isinstance(about := said.get(key), dict)]
    info = {key: value for about in abouts for key, value in about.items()}
    is_depth = bool(info.get("is_depth_map") or info.get("video.is_depth_map"))
    return SetFeature(str(said.get("dtype")), tuple(shape), said.get("names"), is_depth)


class _V2:
    """Finds episodes that have files of their own."""

    def __init__(self, root: Path, info: Mapping[str, Any]) -> None:
        self._root = root
        self._data = str(info.get("data_path") or "")
        self._video = str(info.get("video_path") or "")
        size = info.get("chunks_size")
        self._chunk = size if isinstance(size, int) and size > 0 else 1000

    def entries(self, videos: list[str]) -> Iterator[SetEntry]:
        path = self._root / "meta" / "episodes.jsonl"
        for number, line in enumerate(_lines(path), 1):
            try:
                said = json.loads(line)
                index, length = int(said["episode_index"]), int(said["length"])
                tasks = tuple(map(str, said.get("tasks") or ()))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise unreadable(path, f"list of episodes (line {number})", error) from None
            place = {"episode_index": index, "episode_chunk": index // self._chunk}
            yield SetEntry(
                index=index,
                length=length,
                tasks=tasks,
                data=self._find(self._data, place, f"episode_{index:06d}.parquet"),
                clips={
                    key: Clip(self._find(self._video, place, f"{key}/episode_{index:06d}.mp4"))
                    for key in videos
                },
            )

    def _find(self, template: str, place: Mapping[str, int], usual: str) -> Path:
        """Find a file where info.json says it is, else by the name that such files have."""
        key = usual.partition("/")[0] if "/" in usual else ""
        path = path_of_template(self._root, template, {**place, "video_key": key})
        if not path.is_file():
            found = sorted(self._root.glob(f"*/chunk-*/{usual}"))
            path = found[0] if len(found) == 1 else path
        return path


class _V3:
    """Finds episodes that share files."""

    def __init__(self, root: Path, info: Mapping[str, Any]) -> None:
        self._root = root
        self._data = str(info.get("data_path") or "")
        self._video = str(info.get("video_path") or "")

    def entries(self, videos: list[str]) -> Iterator[SetEntry]:
        parquet = import_library("pyarrow.parquet", needed_for="LeRobot sets")
        files = sorted((self._root / "meta" / "episodes").glob("*/*.parquet"))
        if not files:
            raise RecordingError(f"{self._root}: expected meta/episodes/*/*.parquet, got none")
        for path in files:
            try:
                file = parquet.ParquetFile(path)
                names = [n for n in file.schema_arrow.names if not n.startswith("stats/")]
                rows = file.read(columns=names).to_pylist()
            except (OSError, ValueError, NotImplementedError) as error:
                raise unreadable(path, "parquet file", error) from None
            for row in rows:
                yield self._entry(path, row, videos)

    def _entry(self, path: Path, row: Mapping[str, Any], videos: list[str]) -> SetEntry:
        try:
            index, length = int(row["episode_index"]), int(row["length"])
            clips = {}
            for key in videos:
                said = {n: row[f"videos/{key}/{n}"] for n in ("chunk_index", "file_index")}
                clips[key] = Clip(
                    path_of_template(self._root, self._video, {**said, "video_key": key}),
                    float(row[f"videos/{key}/from_timestamp"]),
                    float(row[f"videos/{key}/to_timestamp"]),
                )
            place = {n: row[f"data/{n}"] for n in ("chunk_index", "file_index")}
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"{path}: an episode lacks what it must say: {error!r}") from None
        tasks = tuple(map(str, row.get("tasks") or ()))
        return SetEntry(
            index, length, tasks, path_of_template(self._root, self._data, place), clips
        )


def path_of_template(root: Path, template: str, values: Mapping[str, Any]) -> Path:
    """Fill in the template of a path below ``root``; it comes from the set, so it is not trusted.

    Raises:
        RecordingError: for a template that names what is not known, or leads out of ``root``.
    """

    def value(found: re.Match[str]) -> str:
        name, width = found[1], found[2]
        if name not in values:
            raise RecordingError(f"{root / INFO}: path {shown(template, 120)!r} asks for {name!r}")
        text = str(values[name])
        return text.rjust(int(width), "0") if width else text

    path = root / _FIELD.sub(value, template)
    if not template or ".." in path.parts or not path.is_relative_to(root):
        raise RecordingError(
            f"{root / INFO}: expected paths below the set, got {shown(template, 120)!r}"
        )
    return path


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_TEXT:
            raise RecordingError(f"{path}: expected less than {_MAX_TEXT >> 20} MB of JSON")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise unreadable(path, "JSON", error) from None


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from (line for line in file if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: cannot be read: {error}") from None
