"""Measure what the page costs: processor time and memory of its process, with one viewer at 5 Hz.

A real ``wm serve``, a robot that sends live reports with one picture five times a second, a real
``wm ui`` beside the service, and one browser's worth of reading.  The system counts the CPU time
of the page's process, so the figures hold on a busy machine too.

    python benchmarks/page_cost.py --seconds 60
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import BenchSettings, Report
from wm_core.contract.files import read_json
from wm_core.contract.live import LiveReport
from wm_core.link.robot.live import LiveSender, LiveSnapshot
from wm_core.link.trainer.settings import SERVICE_FILE

WARM_S = 5.0  #: before it is measured
WAIT_S = 120.0


class Settings(BenchSettings):
    """Measure what the page costs while one viewer looks."""

    seconds: float = Field(60.0, gt=0, description="Seconds that are measured")
    robots: int = Field(1, ge=0, description="Robots that report five times a second")
    cameras: int = Field(1, ge=0, description="Cameras of 64 x 64 of each robot")
    run: Path | None = Field(None, description="Run folder to show; None: one without a learner")
    mounted: bool = Field(False, description="Measure `wm serve --ui` instead of `wm ui`")


@contextlib.contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``wm`` with these words until the block ends."""
    argv = [sys.executable, "-m", "wm_core.cli.main", *words]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_S)


def address_in(process: subprocess.Popen[str]) -> str:
    """Read the page's address from what its process prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("open http"):
            return line.split()[1]
    raise RuntimeError("the page ended at its start")


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Robots:
    """Reports of robots that do nothing else."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._rng, self._cameras = np.random.default_rng(0), settings.cameras
        self._senders = [
            LiveSender(url, robot=f"robot{i}", snapshot=self._snapshot)
            for i in range(settings.robots)
        ]

    def _snapshot(self, pictures: bool) -> LiveSnapshot:
        now_ns = time.time_ns()
        report = LiveReport(
            t_ns=now_ns, mode="acts", action=(0.5, -0.5), action_low=(-1.0, -1.0),
            action_high=(1.0, 1.0), counters={f"counter_{i}": i for i in range(30)},
        )  # fmt: skip
        names = [f"camera_{i}" for i in range(self._cameras if pictures else 0)]
        frames = self._rng.integers(0, 256, (len(names), 64, 64, 3), np.uint8)
        return LiveSnapshot(report, {n: (now_ns, f) for n, f in zip(names, frames, strict=True)})

    def close(self) -> None:
        """End the senders."""
        for sender in self._senders:
            sender.close()


class Viewer:
    """Reads the news of a page as a browser does, and counts it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.frames = self.pictures = self.nbytes = 0
        self._closing = False
        self._thread = threading.Thread(target=self._read, name="viewer", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with (
            httpx.Client(timeout=WAIT_S) as client,
            client.stream("GET", f"{self._url}events") as answer,
        ):
            for line in answer.iter_lines():
                if self._closing:
                    return
                if line.startswith("data: "):
                    self.frames += 1
                    self.nbytes += len(line)
                    pictures = json.loads(line.removeprefix("data: ")).get("pictures", {})
                    self.pictures += any("camera" in name for name in pictures)

    def close(self) -> None:
        """End it with the next news."""
        self._closing = True
        self._thread.join(WAIT_S)


def measure(settings: Settings, root: Path, report: Report) -> None:
    """Let one viewer look for so long, and report."""
    more = ("--ui",) if settings.mounted else ()
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(running("serve", "--root", str(root), "--port", "0", *more))
        end_s = time.monotonic() + WAIT_S
        while not (url := read_json(root / SERVICE_FILE).get("url")):
            if served.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError("the service did not start")
            time.sleep(0.05)
        shown = served
        if not settings.mounted:
            shown = stack.enter_context(running("ui", "--root", str(root), "--port", "0"))
        viewer = Viewer(address_in(shown))
        stack.callback(viewer.close)
        robots = Robots(str(url), settings)
        stack.callback(robots.close)
        time.sleep(WARM_S)
        before_s, frames, pictures = cpu_s(shown.pid), viewer.frames, viewer.pictures
        nbytes, begin_s = viewer.nbytes, time.monotonic()
        time.sleep(settings.seconds)
        wall_s, used_s = time.monotonic() - begin_s, cpu_s(shown.pid) - before_s
        frames, pictures = viewer.frames - frames, viewer.pictures - pictures
        report.add("page/cpu_share", 100 * used_s / wall_s, "% of a core")
        report.add("page/cpu_per_frame", 1e3 * used_s / max(1, frames), "ms")
        report.add("page/frames_per_s", frames / wall_s, "1/s")
        report.add("page/pictures_per_s", pictures / wall_s, "1/s")
        report.add("page/sent", (viewer.nbytes - nbytes) / wall_s / 1e3, "kB/s")
        report.add("page/memory", resident_mib(shown.pid), "MiB")


def main() -> None:
    """Measure and report."""
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory() as name, Report("page", as_json=settings.json_) as report:
        measure(settings, settings.run or Path(name) / "run", report)


if __name__ == "__main__":
    main()
