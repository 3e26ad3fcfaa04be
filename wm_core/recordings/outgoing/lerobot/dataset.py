"""Writes a LeRobotDataset of version 3.0, without the package of that name.

Source: huggingface/lerobot, ``src/lerobot/datasets`` at version 0.6.2: which files and columns
its loader asks for.  Images are PNG in parquet, so nothing is lost, unless video is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.files import json_text
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.recordings.libraries import import_library
from wm_core.recordings.outgoing.episodes import ChosenEpisode
from wm_core.recordings.outgoing.format import NAME, VERSION
from wm_core.recordings.outgoing.lerobot.features import (
    INDEX,
    Feature,
    feature_names,
    features_of,
    step_row,
)
from wm_core.recordings.outgoing.lerobot.stats import ImageStats, NumberStats, Stats
from wm_core.recordings.outgoing.lerobot.tables import (
    FILE_BYTES,
    FILES_PER_CHUNK,
    EpisodeFile,
    RowFiles,
    write_tasks,
)
from wm_core.recordings.outgoing.lerobot.video import FILE_BYTES as VIDEO_FILE_BYTES
from wm_core.recordings.outgoing.lerobot.video import VideoFiles

CODEBASE_VERSION = "v3.0"
_VIDEO_SHARE = 0.05  # of the bytes of raw frames, a guess
#: of which LeRobot is told the range, besides the inputs
_SUMMED = ("action", "next.reward", *INDEX)


def writer(name: str, folder: Path, spec: Spec, *, video: bool) -> LeRobotWriter:
    """Open a writer of a LeRobotDataset; see ``format.open_writer``."""
    import_library("pyarrow.parquet", needed_for="LeRobot datasets")
    if video:
        import_library("av", needed_for="videos of LeRobot datasets")
    return LeRobotWriter(folder, spec, video=video)


class LeRobotWriter:
    """Writes episodes of one spec as a LeRobotDataset.

    Args:
        folder: that becomes the dataset.
        spec: of all episodes.
        video: colour cameras as video.
    """

    def __init__(self, folder: Path, spec: Spec, *, video: bool) -> None:
        self._folder, self._spec = folder, spec
        self._features = features_of(spec, video=video)
        fps = 1.0 / spec.period_s
        self._fps = round(fps) if abs(fps - round(fps)) < 1e-6 * fps else fps
        kept = {n: f for n, f in self._features.items() if f.dtype != "video"}
        self._rows = RowFiles(folder / "data", kept)
        self._videos = {
            name: VideoFiles(folder / "videos" / name, feature.shape, self._fps)
            for name, feature in self._features.items()
            if feature.dtype == "video"
        }
        (folder / "meta").mkdir()
        self._episodes = EpisodeFile(folder / "meta" / "episodes")
        self._tasks: dict[str, int] = {}
        self._robots: dict[str, None] = {}
        self._stats = self._new_stats()
        self._count = self._index = 0

    def add(self, episode: ChosenEpisode, on_step: Callable[[], object]) -> None:
        """Write one episode: a row for each step, whose ``next.*`` are of the step behind it."""
        task = self._tasks.setdefault(episode.task, len(self._tasks))
        self._robots[episode.robot] = None
        places = self._begin()
        stats, first = self._new_stats(), self._index
        waiting: dict[str, Any] | None = None
        for frame, step in enumerate(episode.steps):
            if waiting is not None:
                self._write(waiting, step.reward, step.is_last, stats)
            waiting = self._row(step, frame, task, stats)
            on_step()
        if waiting is not None:
            self._write(waiting, 0.0, waiting["is_last"], stats)
        self._rows.flush()
        summed = {f"stats/{n}/{k}": v for n, s in stats.items() for k, v in s.result().items()}
        self._episodes.add(
            {
                "episode_index": self._count,
                "tasks": [episode.task],
                "length": self._index - first,
                **places,
                **{f"videos/{n}/to_timestamp": v.end_s for n, v in self._videos.items()},
                "dataset_from_index": first,
                "dataset_to_index": self._index,
                "robot": episode.robot,
                "session": episode.session,
                "first_step": episode.first_step,
                **summed,
            }
        )
        for name, total in self._stats.items():
            total.merge(stats[name])
        self._count += 1

    def close(self) -> None:
        """Write what the dataset says of itself."""
        self._rows.close()
        for video in self._videos.values():
            video.close()
        self._episodes.close()
        meta = self._folder / "meta"
        write_tasks(meta / "tasks.parquet", list(self._tasks))
        stats = {name: stats.result() for name, stats in self._stats.items()}
        about = {
            "version": VERSION,
            "robot": next(iter(self._robots), ""),
            "robots": list(self._robots),
            "task": next(iter(self._tasks), ""),
            "spec": self._spec.model_dump(mode="json"),
            "features": feature_names(self._spec),
        }
        for name, value in (("info", self._info()), ("stats", stats), (NAME, about)):
            (meta / f"{name}.json").write_text(json_text(value, indent=4))

    def abandon(self) -> None:
        """Close the files that are open."""
        self._rows.close()
        for video in self._videos.values():
            video.close()

    def estimate(self, steps: Sequence[Step], spec: Spec) -> int:
        """Guess how many bytes ``steps`` take, by packing their images."""
        size = 0
        for step in steps:
            row = step_row(step, spec, features_of(spec, video=bool(self._videos)))
            for value in row.values():
                if isinstance(value, bytes):
                    size += len(value)
                elif getattr(value, "ndim", 0) == 3:
                    size += int(value.nbytes * _VIDEO_SHARE)
                else:
                    size += getattr(value, "nbytes", 8)
        return size

    def _begin(self) -> dict[str, Any]:
        """Begin an episode in every file; gives the columns that say where it is."""
        chunk, file = self._rows.begin()
        places: dict[str, Any] = {"data/chunk_index": chunk, "data/file_index": file}
        for name, video in self._videos.items():
            chunk, file, begin_s = video.begin()
            places[f"videos/{name}/chunk_index"] = chunk
            places[f"videos/{name}/file_index"] = file
            places[f"videos/{name}/from_timestamp"] = begin_s
        return places

    def _row(self, step: Step, frame: int, task: int, stats: dict[str, Stats]) -> dict[str, Any]:
        """Make the row of a step, and sum up its images."""
        for key, name in feature_names(self._spec).items():
            if key in self._spec.images:
                stats[name].add(step.obs[key])
        row = step_row(step, self._spec, self._features)
        for name, video in self._videos.items():
            video.add(row.pop(name))
        places = (np.float32(frame / self._fps), frame, self._count, self._index, task)
        return row | dict(zip(INDEX, places, strict=True))

    def _write(
        self, row: dict[str, Any], reward: float, done: bool, stats: dict[str, Stats]
    ) -> None:
        row |= {"next.reward": reward, "next.done": done}
        self._rows.add(row)
        for name, summed in stats.items():
            if isinstance(summed, NumberStats):
                summed.add(row[name])
        self._index += 1

    def _new_stats(self) -> dict[str, Stats]:
        return {
            name: _stats_of(feature)
            for name, feature in self._features.items()
            if name in _SUMMED or name.startswith("observation.")
        }

    def _info(self) -> dict[str, Any]:
        declared = {name: feature.declared for name, feature in self._features.items()}
        for name, video in self._videos.items():
            declared[name]["info"] = video.info()
        names = "/chunk-{chunk_index:03d}/file-{file_index:03d}"
        videos = "videos/{video_key}" + names + ".mp4"
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": ",".join(self._robots),
            "total_episodes": self._count,
            "total_frames": self._index,
            "total_tasks": len(self._tasks),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": FILE_BYTES >> 20,
            "video_files_size_in_mb": VIDEO_FILE_BYTES >> 20,
            "fps": self._fps,
            "splits": {"train": f"0:{self._count}"},
            "data_path": "data" + names + ".parquet",
            "video_path": videos if self._videos else None,
            "features": declared,
        }


def _stats_of(feature: Feature) -> Stats:
    if feature.dtype in ("image", "video"):
        depth = bool((feature.info or {}).get("is_depth_map"))
        return ImageStats(feature.shape[2], 2**16 if depth else 2**8)
    return NumberStats(feature.shape[0])
