"""Measure how fast sets of tables are imported: LeRobot, HDF5, Minari and npz, per CPU second.

Each set has one episode of a camera of 640 x 480 pixels, whose frames all become steps.  It is
written beforehand.  One process does all the work; its CPU time counts, so that figures hold on a
busy machine too.

    python benchmarks/table_import.py --frames 300
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import BenchSettings, Report
from wm_core.recordings.formats import format_of, reader
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.write_store import write_store

HEIGHT, WIDTH, RATE_HZ = 480, 640, 30
CAMERA = "observation.images.front"


class Settings(BenchSettings):
    """Measure the import of tables with a camera."""

    frames: int = Field(300, gt=10, description="Frames of the camera, at least 11")


def camera(count: int) -> np.ndarray:
    """Frames (count, H, W, 3) uint8 of a camera that pans over a picture with noise."""
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[0:HEIGHT, 0 : 2 * WIDTH]
    scene = 120 + 60 * np.sin(rows / 37.0) + 50 * np.sin(cols / 23.0 + rows / 91.0)
    scene = (scene[..., None] + rng.normal(0, 2, (HEIGHT, 2 * WIDTH, 3))).clip(0, 255)
    wide = scene.astype(np.uint8)
    return np.stack([wide[:, 2 * i % WIDTH : 2 * i % WIDTH + WIDTH] for i in range(count)])


def numbers(count: int) -> tuple[np.ndarray, np.ndarray]:
    """States and actions (count, 6) float32 of an arm."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(2, count, 6)).astype(np.float32)


def npz(root: Path, frames: np.ndarray) -> None:
    """Write an npz file of one episode."""
    state, action = numbers(len(frames))
    np.savez(root / "episode.npz", image=frames, state=state, action=action)


def hdf5(root: Path, frames: np.ndarray) -> None:
    """Write a file as robomimic has them."""
    import h5py

    state, action = numbers(len(frames))
    with h5py.File(root / "demos.hdf5", "w") as file:
        demo = file.create_group("data/demo_0")
        demo["obs/front_image"], demo["obs/state"], demo["actions"] = frames, state, action


def lerobot(root: Path, frames: np.ndarray, kind: str, codec: str = "libx264") -> None:
    """Write a LeRobot set, version 3.0."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    state, action = numbers(len(frames))
    index = np.arange(len(frames))
    columns: dict[str, Any] = {
        "observation.state": list(state),
        "action": list(action),
        "timestamp": index / RATE_HZ,
        "frame_index": index,
        "episode_index": np.zeros(len(frames), np.int64),
    }
    if kind == "image":
        columns[CAMERA] = [{"bytes": png(frame), "path": None} for frame in frames]
    shapes = {"observation.state": [6], "action": [6], CAMERA: [HEIGHT, WIDTH, 3]}
    place = {"chunk_index": 0, "file_index": 0}
    row = {"episode_index": 0, "length": len(frames), "tasks": ["pan"]}
    row |= {f"data/{k}": v for k, v in place.items()}
    place |= {"from_timestamp": 0.0, "to_timestamp": len(frames) / RATE_HZ}
    row |= {f"videos/{CAMERA}/{k}": v for k, v in place.items()}
    for path, table in (
        ("data/chunk-000/file-000.parquet", pa.table(columns)),
        ("meta/episodes/chunk-000/file-000.parquet", pa.Table.from_pylist([row])),
    ):
        (root / path).parent.mkdir(parents=True)
        pq.write_table(table, root / path, row_group_size=100)
    name = "chunk-{chunk_index:03d}/file-{file_index:03d}"
    info = {
        "codebase_version": "v3.0",
        "fps": RATE_HZ,
        "data_path": f"data/{name}.parquet",
        "video_path": "videos/{video_key}/" + name + ".mp4",
        "features": {
            k: {"dtype": kind if k == CAMERA else "float32", "shape": s} for k, s in shapes.items()
        },
    }
    (root / "meta" / "info.json").write_text(json.dumps(info))
    if kind == "video":
        film(root / "videos" / CAMERA / "chunk-000" / "file-000.mp4", frames, codec)


def png(frame: np.ndarray) -> bytes:
    """Encode a frame as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", compress_level=1)
    return file.getvalue()


def film(path: Path, frames: np.ndarray, codec: str) -> None:
    """Write a video."""
    import av

    path.parent.mkdir(parents=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=RATE_HZ, options={"crf": "30", "g": "2"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.time_base = Fraction(1, RATE_HZ)
        if codec == "libsvtav1":
            stream.options = {"crf": "30", "g": "2", "preset": "12"}
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


SETS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "npz": npz,
    "hdf5": hdf5,
    "lerobot_png": lambda root, frames: lerobot(root, frames, "image"),
    "lerobot_h264": lambda root, frames: lerobot(root, frames, "video"),
    "lerobot_av1": lambda root, frames: lerobot(root, frames, "video", "libsvtav1"),
}


def measure(name: str, frames: np.ndarray, report: Report) -> None:
    """Write a set, import it, and report frames and megabytes of raw images per CPU second."""
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as folder:
        root = Path(folder) / "set"
        root.mkdir()
        SETS[name](root, frames)
        read = format_of(root) or "hdf5"
        path = root / "demos.hdf5" if read == "hdf5" else root
        began = time.process_time()
        written = write_store(
            reader(read).open_source(path, ReadOptions()), Path(folder) / "store"
        )
        spent = time.process_time() - began
    report.add(f"{name}, steps", written.steps / spent, "per CPU second")
    report.add(f"{name}, raw images", frames.nbytes / 1e6 / spent, "MB per CPU second")


def main(argv: list[str]) -> int:
    """Write each set, import it; print the figures."""
    settings = tyro.cli(Settings, args=argv, description=__doc__)
    frames = camera(settings.frames)
    with Report("import of tables", as_json=settings.json_) as report:
        for name in SETS:
            measure(name, frames, report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
