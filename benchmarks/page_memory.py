"""Measure whether a page that is watched for a day, and the service's live board, keep growing.

Robots report five times a second, a learner logs every second and stores chunks, and one viewer
looks at each frame; the clock is simulated, so that a day takes minutes.  Live board, run folder,
store and page are the real ones.

    python benchmarks/page_memory.py --hours 24
    python benchmarks/page_memory.py --stored-hours 22 --hours 2   # the end of a day alone
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from PIL import Image
from pydantic import Field

from wm_core.bench.report import BenchSettings, Report
from wm_core.contract.files import json_object, json_text
from wm_core.contract.live import LiveReport
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.link.trainer.live_board import LiveBoard
from wm_core.page.board import LOOK_S, Board, Frame
from wm_core.page.hearing import RobotsHeard, heard_in
from wm_core.page.run_reader import RunReader
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger

RATE_HZ, EPISODE = 10, 200  #: of the robots: steps a second, steps of an episode
SPEC = Spec(
    images={},
    vectors={"place": VectorSpec(size=2)},
    action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)),
    period_s=1 / RATE_HZ,
)


class Settings(BenchSettings):
    """Measure the memory of a page that is watched for long."""

    hours: float = Field(24.0, gt=0, description="Hours that somebody looks")
    stored_hours: float = Field(
        0.0, ge=0, description="Hours before that, of which the store and the log are filled alone"
    )
    robots: int = Field(2, ge=1, description="Robots that report, each with one camera")
    sample_s: float = Field(3600.0, gt=0, description="Simulated seconds between two samples")


class Sample(NamedTuple):
    """What is held at one moment."""

    simulated_s: float
    resident_bytes: int
    board_bytes: int  #: of the newest reports
    shown: int  #: elements and pictures of the page
    points: int  #: of its curves
    chunks: int  #: of the store
    episodes: int  #: of the store
    looks: int


def pictures(count: int = 16) -> list[str]:
    """Draw pictures of 64 x 64 pixels, as base64 of JPEG."""
    rng, drawn = np.random.default_rng(0), []
    for _ in range(count):
        file = BytesIO()
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(file, "JPEG")
        drawn.append(base64.b64encode(file.getvalue()).decode())
    return drawn


class Day:
    """Plays robots, learner and viewer against a simulated clock.

    Args:
        root: the run folder, which is made.
        robots: how many there are.
    """

    def __init__(self, root: Path, robots: int) -> None:
        root.mkdir(parents=True)
        self.now_s = 0.0
        self._names = [f"robot{i}" for i in range(robots)]
        self._pictures, self._looks = pictures(), 0
        self.live = LiveBoard(clock=lambda: self.now_s)
        self.reader = RunReader(root)
        self.board = Board(self.reader, self._listen, clock=lambda: self.now_s)
        self._metrics = (root / "metrics.jsonl").open("a")
        store = root / "store"
        self._ledger = Ledger(store / LEDGER_NAME)
        self._recorder = EnvRecorder(store, self._ledger, robot="robot0", task="day", spec=SPEC)
        self._shown, self._steps = Frame(), 0

    def fill(self, seconds: float) -> None:
        """Let so many simulated seconds pass while nobody looks."""
        for _ in range(round(seconds)):
            self.now_s += 1.0
            for _ in range(RATE_HZ):
                self._step()
            self._log()

    def play(self, seconds: float) -> None:
        """Let so many simulated seconds pass."""
        for tick in range(round(seconds / LOOK_S)):
            self.now_s += LOOK_S
            self._report()
            for _ in range(round(RATE_HZ * LOOK_S)):
                self._step()
            if tick % round(1 / LOOK_S) == 0:
                self._log()
            self._look()

    def sample(self) -> Sample:
        """Say what is held now."""
        run, frame = self.board.run, self.board.frame
        return Sample(
            self.now_s,
            _resident_bytes(),
            self.live.held_bytes,
            len(frame.html) + len(frame.pictures),
            len(run.curves.episodes) + len(run.curves.evaluations) + len(run.curves.versions),
            run.experience.chunks,
            int(run.experience.returns.get("episodes", 0)),
            self._looks,
        )

    def close(self) -> None:
        """Close its files."""
        self._metrics.close()
        self._recorder.seal()
        self.reader.close()
        self._ledger.close()

    def _report(self) -> None:
        now_ns = round(self.now_s * 1e9)
        for i, name in enumerate(self._names):
            jpeg = self._pictures[(self._looks + i) % len(self._pictures)]
            counters = {f"counter_{k}": self._looks + k for k in range(30)}
            said = {
                "t_ns": now_ns, "mode": "acts", "policy": self._looks // 5000,
                "action": [np.sin(self.now_s + i), np.cos(self.now_s)], "action_low": [-1, -1],
                "action_high": [1, 1], "observation_age_ms": 10.0 + self._looks % 7,
                "counters": counters, "cameras": {"image": {"t_ns": now_ns, "jpeg": jpeg}},
            }  # fmt: skip
            self.live.put(name, LiveReport.parse(json_text(said).encode()))

    def _step(self) -> None:
        at, self._steps = self._steps % EPISODE, self._steps + 1
        self._recorder.add(
            Step(
                obs={"place": np.array([at, self._steps], np.float32)},
                action=np.zeros(2, np.float32),
                reward=float(at > 0),
                is_first=at == 0,
                is_last=at == EPISODE - 1,
                is_terminal=False,
                policy_version=self._steps // 50_000,
                stamp_ns=self._steps * 10**9 // RATE_HZ,
            )
        )

    def _log(self) -> None:
        line = {"agent_steps": self._steps, "episode/return": self._steps % 97, "loss": 0.5}
        if self._steps % 3000 < RATE_HZ:
            line |= {"eval/return": 5.0, "eval/low": 4.0, "eval/high": 6.0}
            line |= {"published_version": self._steps // 3000}
        self._metrics.write(json.dumps(line) + "\n")
        self._metrics.flush()

    def _look(self) -> None:
        """Draw a frame, and write what one viewer is sent of it."""
        self._looks += 1
        self.board.frame = frame = self.board.look(self._listen())
        news = frame.since(self._shown)
        json_text({"html": news.html, "pictures": news.pictures})
        self._shown = frame

    def _listen(self) -> Callable[[], RobotsHeard]:
        said = self.live.read()
        return lambda: heard_in(json_object(said))


def samples(root: Path, settings: Settings) -> Iterator[Sample]:
    """Give what is held after each simulated ``sample_s``."""
    day = Day(root, settings.robots)
    try:
        day.fill(settings.stored_hours * 3600)
        while day.now_s < (settings.stored_hours + settings.hours) * 3600 - LOOK_S:
            day.play(settings.sample_s)
            yield day.sample()
    finally:
        day.close()


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Simulate, and report."""
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory() as name, Report("page", as_json=settings.json_) as report:
        begin_s, found = time.monotonic(), list[Sample]()
        for sample in samples(Path(name) / "run", settings):
            found.append(sample)
            hours = sample.simulated_s / 3600
            report.progress(f"{hours:.1f} h after {time.monotonic() - begin_s:.0f} s")
            report.add(f"page/memory/{hours:.1f}h", sample.resident_bytes / 2**20, "MiB")
        last = found[-1]
        for name_, value in last._asdict().items():
            report.add(f"page/memory/held/{name_}", float(value), "")
        grown = last.resident_bytes - found[0].resident_bytes
        report.add("page/memory/grown_since_first", grown / 2**20, "MiB")


if __name__ == "__main__":
    main()
