"""Writes small LeRobot sets as the format describes them, by pyarrow and PyAV alone."""

from __future__ import annotations

import io
import json
from fractions import Fraction

import numpy as np
import pytest

DEFAULT = {
    "timestamp": ("float32", [1]),
    "frame_index": ("int64", [1]),
    "episode_index": ("int64", [1]),
    "index": ("int64", [1]),
    "task_index": ("int64", [1]),
}


def shade(number, size=64):
    """A frame that says its number: a grey that a lossy video keeps apart from its neighbours."""
    return np.full((size, size, 3), 16 + 6 * number, np.uint8)


def number_of(image):
    """The number of a frame of ``shade``."""
    return round((float(image.mean()) - 16) / 6)


def png(image):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image if image.ndim == 2 or image.shape[2] == 3 else image[..., 0]).save(
        file, "PNG"
    )
    return file.getvalue()


def jpeg(image):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG")
    return file.getvalue()


def write_video(path, frames, fps=10, skip=(), codec="libx264"):
    """Write frames (H, W, 3) at ``fps``; the times of ``skip`` are left without a frame."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options={"crf": "10", "g": "2"})
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        stream.time_base = Fraction(1, fps)
        for i, pixels in enumerate(frames):
            if i in skip:
                continue
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


class LeRobotSet:
    """Writes a set of episodes whose rows are numbered through: camera, state and action say it.

    Attributes may be changed before ``write``; what is given as ``columns`` replaces or adds.
    """

    def __init__(self, root, lengths=(5, 4), version="v3.0", camera="video", size=64):
        self.root, self.lengths, self.version, self.camera = root, list(lengths), version, camera
        self.size, self.fps, self.total = size, 10, sum(lengths)
        self.key = "observation.images.front"
        self.features = {"observation.state": ("float32", [2]), "action": ("float32", [2])}
        number = np.arange(self.total)
        self.columns = {
            "observation.state": np.stack([number, -number], 1).astype(np.float32),
            "action": np.stack([number, number % 2], 1).astype(np.float32),
        }
        self.info, self.video = {}, {}
        self.frames = [shade(i, size) for i in number]
        if camera == "image":
            self.columns[self.key] = [{"bytes": png(f), "path": None} for f in self.frames]

    def add(self, name, values, dtype="float32", shape=(1,)):
        self.features[name] = (dtype, list(shape))
        self.columns[name] = values
        return self

    def write(self):
        features = {
            name: {"dtype": dtype, "shape": shape, "names": None}
            for name, (dtype, shape) in (self.features | DEFAULT).items()
        }
        if self.camera:
            features[self.key] = {
                "dtype": self.camera,
                "shape": [self.size, self.size, 3],
                "names": ["height", "width", "channels"],
            }
        v3 = self.version == "v3.0"
        data = "chunk-{chunk_index:03d}/file-{file_index:03d}"
        old = "chunk-{episode_chunk:03d}/"
        info = {
            "codebase_version": self.version,
            "robot_type": "so101",
            "fps": self.fps,
            "chunks_size": 1000,
            "data_path": f"data/{data if v3 else old + 'episode_{episode_index:06d}'}.parquet",
            "video_path": f"videos/{'{video_key}/' + data}.mp4"
            if v3
            else "videos/" + old + "{video_key}/episode_{episode_index:06d}.mp4",
            "features": features,
            **self.info,
        }
        (self.root / "meta").mkdir(parents=True, exist_ok=True)
        (self.root / "meta" / "info.json").write_text(json.dumps(info))
        (self._v3 if v3 else self._v2)()
        return self.root

    def _table(self, begin, end, episode):
        import pyarrow as pa

        steps = end - begin
        rows = {
            "timestamp": (np.arange(steps) / self.fps).astype(np.float32),
            "frame_index": np.arange(steps),
            "episode_index": np.full(steps, episode),
            "index": np.arange(begin, end),
            "task_index": np.zeros(steps, np.int64),
        }
        for name, values in self.columns.items():
            rows[name] = values[begin:end]
        return pa.table(
            {
                k: list(v) if isinstance(v, np.ndarray) and v.ndim > 1 else v
                for k, v in rows.items()
            }
        )

    def _spans(self):
        ends = np.cumsum(self.lengths).tolist()
        return list(zip([0, *ends], ends, strict=False))

    def _v3(self):
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables, rows = [], []
        for i, (begin, end) in enumerate(self._spans()):
            tables.append(self._table(begin, end, i))
            row = {"episode_index": i, "length": end - begin, "tasks": ["wave"]}
            row |= {"data/chunk_index": 0, "data/file_index": 0, "stats/action/min": [0.0]}
            if self.camera == "video":
                place = {"chunk_index": 0, "file_index": 0}
                place |= {"from_timestamp": begin / self.fps, "to_timestamp": end / self.fps}
                row |= {f"videos/{self.key}/{k}": v for k, v in place.items()}
            rows.append(row)
        self.put(pa.concat_tables(tables), "data/chunk-000/file-000.parquet", row_group_size=3)
        self.put(pa.Table.from_pylist(rows), "meta/episodes/chunk-000/file-000.parquet")
        assert pq
        if self.camera == "video":
            path = self.root / "videos" / self.key / "chunk-000" / "file-000.mp4"
            write_video(path, self.frames, **{"fps": self.fps, **self.video})

    def _v2(self):
        lines = []
        for i, (begin, end) in enumerate(self._spans()):
            self.put(self._table(begin, end, i), f"data/chunk-000/episode_{i:06d}.parquet")
            lines.append(
                json.dumps({"episode_index": i, "length": end - begin, "tasks": ["wave"]})
            )
            if self.camera == "video" and end > begin:
                path = self.root / "videos" / "chunk-000" / self.key / f"episode_{i:06d}.mp4"
                write_video(path, self.frames[begin:end], **{"fps": self.fps, **self.video})
        (self.root / "meta" / "episodes.jsonl").write_text("\n".join(lines))

    def put(self, table, where, **options):
        import pyarrow.parquet as pq

        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, **options)


@pytest.fixture
def lerobot_set(tmp_path):
    """Makes a LeRobotSet in a folder of its own."""
    return lambda *args, **options: LeRobotSet(tmp_path / "set", *args, **options)
