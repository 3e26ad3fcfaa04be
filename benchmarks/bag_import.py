"""Measure how fast a bag of raw images is imported, in megabytes of the bag a CPU second.

The bag is written beforehand, by rosbags: a camera of 640 x 480 pixels at 30 Hz, odometry and
commands, of which every third frame becomes a step.  One process does all the work; its CPU time
counts, so that figures hold on a busy machine too.

    python benchmarks/bag_import.py --megabytes 300
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import BenchSettings, Report
from wm_core.recordings.bag_damage import examine_bag
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.write_store import write_store
from wm_ros.recorded.reader import open_source

HEIGHT, WIDTH, RATE_HZ = 480, 640, 30
BEGIN_NS = 1_700_000_000_000_000_000
ROBOT = """\
robot: bench
rate_hz: 10
observations:
  image: {type: sensor_msgs/Image, topic: camera/image_raw, height: 64, width: 64}
  speed: {type: geometry_msgs/TwistStamped, topic: speed, fields: [linear.x, angular.z]}
actions: {type: geometry_msgs/TwistStamped, topic: cmd_vel, low: -1.0, high: 1.0}
"""


class Settings(BenchSettings):
    """Measure the import of a bag of raw images."""

    megabytes: int = Field(300, gt=10, description="Size of the bag in megabytes, at least 11")
    storage: Literal["mcap", "sqlite3"] = Field("mcap", description="Storage of the bag")
    compression: Literal["none", "storage", "message"] = Field(
        "none", description="How the bag is packed; storage: blocks of an MCAP file, by zstd"
    )
    every_frame: bool = Field(False, description="Let every frame become a step, at 30 Hz")


def write_bag(path: Path, settings: Settings) -> None:
    """Write a camera that pans over a picture with noise, as bytes that hardly repeat."""
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    types: Any = store.types
    rng = np.random.default_rng(0)
    rows = np.linspace(0, 255, HEIGHT)[:, None, None]
    picture = (rows + rng.normal(0, 6, (HEIGHT, 2 * WIDTH, 3))).clip(0, 255).astype(np.uint8)
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[settings.storage.upper()])
    if settings.compression != "none":
        mode = CompressionMode[settings.compression.upper()]
        writer.set_compression(mode, CompressionFormat.ZSTD)

    def header(stamp_ns: int) -> Any:
        seconds, nanoseconds = divmod(stamp_ns, 10**9)
        stamp = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=nanoseconds)
        return types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")

    def twist(stamp_ns: int) -> Any:
        none = types["geometry_msgs/msg/Vector3"](x=0.5, y=0.0, z=0.0)
        moved = types["geometry_msgs/msg/Twist"](linear=none, angular=none)
        return types["geometry_msgs/msg/TwistStamped"](header=header(stamp_ns), twist=moved)

    def image(stamp_ns: int, i: int) -> Any:
        begin = 7 * i % WIDTH
        pixels = np.ascontiguousarray(picture[:, begin : begin + WIDTH]).reshape(-1)
        return types["sensor_msgs/msg/Image"](
            header=header(stamp_ns), height=HEIGHT, width=WIDTH, encoding="rgb8",
            is_bigendian=0, step=3 * WIDTH, data=pixels,
        )  # fmt: skip

    makers: tuple[tuple[str, Callable[[int, int], Any]], ...] = (
        ("/speed", lambda stamp_ns, i: twist(stamp_ns)),
        ("/camera/image_raw", image),
        ("/cmd_vel", lambda stamp_ns, i: twist(stamp_ns)),
    )
    with writer:
        topics: dict[str, Any] = {}
        for i in range(settings.megabytes * 10**6 // (HEIGHT * WIDTH * 3)):
            stamp_ns = BEGIN_NS + i * 10**9 // RATE_HZ
            for late, (topic, make) in enumerate(makers):
                msg = make(stamp_ns, i)
                kind = msg.__msgtype__
                if topic not in topics:
                    topics[topic] = writer.add_connection(topic, kind, typestore=store)
                data = store.serialize_cdr(msg, kind)
                writer.write(topics[topic], stamp_ns + late * 10**6, data)


def main(argv: list[str]) -> int:
    """Write the bag, look at it, import it; print the figures."""
    settings = tyro.cli(Settings, args=argv, description=__doc__)
    report = Report("import of a bag", as_json=settings.json_)
    with tempfile.TemporaryDirectory(prefix="wm-bench-") as folder, report:
        home = Path(folder)
        write_bag(home / "bag", settings)
        robot = home / "robot.yaml"
        robot.write_text(
            ROBOT.replace("rate_hz: 10", f"rate_hz: {30 if settings.every_frame else 10}")
        )
        size = sum(file.stat().st_size for file in (home / "bag").iterdir())
        report.add("bag", size / 1e6, "MB")
        began = time.process_time()
        examine_bag(home / "bag")
        looked = time.process_time() - began
        began, wall = time.process_time(), time.perf_counter()
        source = open_source(home / "bag", ReadOptions(robot=robot))
        written = write_store(source, home / "run" / "store")
        spent, wall = time.process_time() - began, time.perf_counter() - wall
        stored = sum(file.stat().st_size for file in (home / "run").rglob("*.mcap"))
        report.add("look at every byte", size / 1e6 / looked, "MB per CPU second")
        report.add("import, look included", size / 1e6 / spent, "MB per CPU second")
        report.add("import, look included", 1e9 / (size / spent), "CPU seconds per GB")
        report.add("steps", written.steps / spent, "per CPU second")
        report.add("wall time", wall, "s")
        report.add("store", stored / 1e6, "MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
