"""Walks the files of a LeRobot set: the rows of each episode, and the frames beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wm_core.contract.errors import RecordingError
from wm_core.contract.inputs import ImageSpec
from wm_core.recordings.tables.images import FrameShape, resized, shape_of
from wm_core.recordings.tables.lerobot_meta import Meta, SetEntry
from wm_core.recordings.tables.parquet import ParquetFile
from wm_core.recordings.tables.video import Video, frame_numbers

_TIMES = ("timestamp", "frame_index")
Images = Mapping[str, "np.ndarray | None"]


class SetCamera(NamedTuple):
    """Says what becomes of a camera's frames."""

    name: str  #: of the observation
    spec: ImageSpec
    shape: FrameShape  #: of every frame


@dataclass(frozen=True)
class SetEpisode:
    """Is one episode of a set: rows ``begin`` to ``end`` of a file."""

    entry: SetEntry
    file: ParquetFile
    begin: int
    end: int
    fps: float

    @property
    def where(self) -> str:
        return f"{self.file.path}, episode {self.entry.index}"

    @property
    def steps(self) -> int:
        """Count the rows, T."""
        return self.end - self.begin

    def column(self, name: str) -> np.ndarray:
        """Read a column of numbers, (T, ...)."""
        return self.file.column(name, self.begin, self.end)

    @property
    def grid_s(self) -> np.ndarray:
        """Give the times (T,) of the rows since the episode began, on the grid of the rate."""
        if "frame_index" in self.file.names:
            return self.column("frame_index").reshape(-1) / self.fps
        return np.arange(self.steps) / self.fps

    @property
    def time_s(self) -> np.ndarray:
        """Give the times (T,) of the rows as the set states them, else on the grid."""
        if "timestamp" in self.file.names:
            return self.column("timestamp").reshape(-1).astype(np.float64)
        return self.grid_s


class SetFiles:
    """Reads the files of a set, each once where its episodes are in order.

    Args:
        meta: what the set says of itself.
        columns: of numbers, that are read.
        cameras: that are read, by their features.
    """

    def __init__(
        self, meta: Meta, columns: Sequence[str], cameras: Mapping[str, SetCamera]
    ) -> None:
        self._meta, self._cameras = meta, cameras
        self._columns = list(dict.fromkeys([*columns, "episode_index"]))
        self._videos = [k for k in cameras if meta.features[k].dtype == "video"]
        self._images = [k for k in cameras if k not in self._videos]
        self._open: dict[str, Video] = {}

    @property
    def paths(self) -> list[Path]:
        """List the files that are read."""
        entries = [entry for entry in self._meta.entries if entry.length]
        found = [entry.data for entry in entries]
        found += [entry.clips[key].path for key in self._videos for entry in entries]
        return list(dict.fromkeys(found))

    def episodes(self, left_out: Counter[str] | None = None) -> Iterator[SetEpisode]:
        """Yield the episodes that have rows; empty ones are counted.

        Raises:
            RecordingError: for files that are missing, damaged or of other lengths than stated.
        """
        file: ParquetFile | None = None
        for entry in self._meta.entries:
            if not entry.length:
                if left_out is not None:
                    left_out["episode_empty"] += 1
                continue
            if file is None or file.path != entry.data:
                file = ParquetFile(entry.data, self._columns, _TIMES)
                index = file.column("episode_index").reshape(-1)
            rows = np.flatnonzero(index == entry.index)
            if len(rows) != entry.length or rows[-1] - rows[0] != len(rows) - 1:
                raise RecordingError(
                    f"{entry.data}: expected {entry.length} rows of episode {entry.index} in one "
                    f"piece, as the meta files say, got {len(rows)}"
                )
            yield SetEpisode(entry, file, int(rows[0]), int(rows[-1]) + 1, self._meta.fps)

    def images(self, episode: SetEpisode) -> Iterator[Images]:
        """Yield the images of each row, at the size of the network; None where one is missing."""
        streams: list[Iterator[Images]] = [self._clip(episode, key) for key in self._videos]
        if self._images:
            streams.append(self._stills(episode))
        if not streams:
            streams = [iter([{}] * episode.steps)]
        for parts in zip(*streams, strict=True):
            yield {name: image for part in parts for name, image in part.items()}

    def close(self) -> None:
        """Close the videos; they are opened again when they are needed."""
        for video in self._open.values():
            video.close()
        self._open.clear()

    def _clip(self, episode: SetEpisode, key: str) -> Iterator[Images]:
        clip, camera = episode.entry.clips[key], self._cameras[key]
        video = self._open.get(key)
        if video is None or video.path != clip.path:
            if video is not None:
                video.close()
            video = self._open[key] = Video(clip.path, camera.shape)
            video.check_rate(self._meta.fps)
        grid_s = episode.grid_s
        span = None if clip.from_s is None else (clip.from_s, clip.to_s or np.inf)
        numbers = frame_numbers(video.times_s, grid_s, self._meta.fps, span)
        for frame in video.frames(numbers):
            yield {camera.name: None if frame is None else resized(frame, camera.spec, clip.path)}

    def _stills(self, episode: SetEpisode) -> Iterator[Images]:
        for row in episode.file.images(self._images, episode.begin, episode.end):
            found = {}
            for key, image in row.items():
                camera, where = self._cameras[key], f"{episode.where}, {key}"
                if image is not None and image.shape != camera.shape[:3]:
                    raise RecordingError(
                        f"{where}: expected images {camera.shape[:3]}, got {image.shape}; a "
                        "camera must not change its size"
                    )
                found[camera.name] = None if image is None else resized(image, camera.spec, where)
            yield found


def frame_shape(meta: Meta, key: str) -> FrameShape:
    """Look at the first frame of a camera: what its frames are.

    Raises:
        RecordingError: where there is none, or where it is not as info.json says.
    """
    feature = meta.features[key]
    entry = next((entry for entry in meta.entries if entry.length), None)
    if entry is None:
        raise RecordingError(f"{meta.root}: it holds no episode with a step")
    stated = shape_of(feature.shape, np.uint8, f"{meta.root}, {key}")
    if feature.dtype == "image":
        file = ParquetFile(entry.data, [])
        if key not in file.names:
            raise RecordingError(f"{entry.data}: the column {key!r} is missing")
        first = next(file.images([key], 0, 1), {key: None})[key]
        if first is None:
            raise RecordingError(f"{entry.data}: {key!r} holds no image in its first row")
    else:
        path = entry.clips[key].path
        if feature.is_depth:
            raise RecordingError(f"{path}: videos of depth are not read; use --without {key}")
        if not path.is_file():
            raise RecordingError(
                f"{path}: this video is missing; bring it, or leave the camera out with "
                f"--without {key}"
            )
        video = Video(path)
        try:
            video.check_rate(meta.fps)
            first = video.first()[:, :, : stated.channels]
        finally:
            video.close()
    shape = shape_of(first.shape, first.dtype, key)
    if shape[:3] != stated[:3]:
        raise RecordingError(
            f"{meta.root}: expected {key!r} of {stated.width}x{stated.height}, as info.json says, "
            f"got {shape.width}x{shape.height}; correct info.json or the video"
        )
    return shape
