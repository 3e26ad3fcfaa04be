"""Measure what live reports cost the robot: processor time of their thread, and late ticks.

A paced loop puts a camera step into a spool each tick, beside a real ``wm serve``.  Turns with
live reports, which somebody watches in another process, stand between turns without, so that
whatever else the machine does meets both alike.

    python benchmarks/live_cost.py --seconds 60 --json
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.conformance import random_obs
from wm_core.contract.files import read_json
from wm_core.contract.live import LiveReport
from wm_core.contract.spec import ActionSpec, Frozen, Spec
from wm_core.contract.step import Step
from wm_core.link.robot.client import FAILURES, TrainerClient
from wm_core.link.robot.live import LiveSender, LiveSettings, LiveSnapshot, rest_in_s
from wm_core.link.robot.spool import Spool
from wm_core.link.robot.spool_settings import SpoolSettings
from wm_core.link.robot.uploader import Uploader

TURN_S = 5.0
SWITCH_S = 0.0005  #: after which a thread hands the interpreter over, as in the node
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}


class Settings(Frozen):
    """Measure what live reports cost the robot."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    rate_hz: float = Field(50.0, gt=0, description="Rate of the paced loop in Hz")
    live_hz: float = Field(5.0, gt=0, description="Live reports a second")
    seconds: float = Field(30.0, gt=0, description="Seconds that each variant is measured")
    realtime: bool = Field(
        False, description="Give the loop, and below it the threads, a real-time priority"
    )
    cameras: int = Field(1, ge=0, description="Cameras of 64 x 64 whose pictures are sent")


class Turn(NamedTuple):
    """What one turn came to."""

    late_s: list[float]  #: of every tick
    cpu_s: float  #: of the thread that sends
    sent: int  #: live reports
    pictures: int


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Run ``wm serve`` in a process of its own; gives its address."""
    argv = [
        sys.executable,
        "-m",
        "wm_core.cli.main",
        "serve",
        "--root",
        str(folder),
        "--port",
        "0",
    ]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    try:
        while not (url := read_json(folder / "service.json").get("url")):
            if process.poll() is not None:
                raise RuntimeError("the service ended at its start")
            time.sleep(0.05)
        yield str(url)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def watch(url: str) -> None:
    """Look five times a second, until killed."""
    client = TrainerClient(url)
    while True:
        with contextlib.suppress(*FAILURES):
            client.request("GET", "/v1/live?robot=bench")
        time.sleep(0.2)


class Body:
    """A robot whose newest step is what is said of it."""

    def __init__(self, spec: Spec, first: Step) -> None:
        self._spec, self.newest = spec, first
        self.ticked_s, self.period_s = 0.0, 1.0

    def rest_s(self) -> float:
        """Give the seconds until the loop has just ticked."""
        return rest_in_s(time.monotonic() - self.ticked_s, self.period_s)

    def snapshot(self, pictures: bool) -> LiveSnapshot:
        """Look at the newest step."""
        now_ns, step = time.time_ns(), self.newest
        counters = {f"counter_{i}": i for i in range(30)}
        report = LiveReport(
            t_ns=now_ns,
            mode="acts",
            action=tuple(step.action.tolist()),
            action_low=self._spec.action.low,
            action_high=self._spec.action.high,
            counters=counters,
        )
        kinds = self._spec.images.items() if pictures else ()
        return LiveSnapshot(report, {n: (now_ns, k.picture(step.obs[n])) for n, k in kinds})


def turn(settings: Settings, url: str, live: bool, steps: list[Step], spool: Spool) -> Turn:
    """Run the paced loop for one turn."""
    body = Body(spool_spec(settings.cameras), steps[0])
    body.period_s = 1.0 / settings.rate_hz
    told, sender = LiveSettings(rate_hz=settings.live_hz), None
    if live:
        sender = LiveSender(
            url, robot="bench", snapshot=body.snapshot, settings=told, rest_s=body.rest_s
        )
    clock = None if sender is None else time.pthread_getcpuclockid(sender._thread.ident or 0)
    if settings.realtime:
        _follow()
    late, begin = [], time.perf_counter() + 1.5  # by when somebody watches
    before_s = 0.0
    for tick in range(round(TURN_S * settings.rate_hz)):
        due = begin + tick / settings.rate_hz
        time.sleep(max(0.0, due - time.perf_counter()))
        late.append(time.perf_counter() - due)
        if tick == 0 and clock is not None:
            before_s, sent = time.clock_gettime(clock), _counts(sender)
        step = replace(steps[tick % len(steps)], stamp_ns=time.time_ns())
        spool.put(step)
        body.newest, body.ticked_s = step, time.monotonic()
    if sender is None or clock is None:
        return Turn(late, 0.0, 0, 0)
    cpu_s, after = time.clock_gettime(clock) - before_s, _counts(sender)
    sender.close()
    return Turn(late, cpu_s, after[0] - sent[0], after[1] - sent[1])


def _follow() -> None:
    """Let no other program keep the processor from a thread that holds the interpreter."""
    for thread in threading.enumerate():
        brief = thread.name.startswith(("spool", "uploader", "live"))
        if brief and thread.native_id is not None:
            os.sched_setscheduler(thread.native_id, os.SCHED_FIFO, os.sched_param(1))


def _counts(sender: LiveSender | None) -> tuple[int, int]:
    counters = {} if sender is None else sender.counters()
    return int(counters.get("sent", 0)), int(counters.get("pictures", 0))


def spool_spec(cameras: int) -> Spec:
    """Describe the robot's cameras of 64 x 64 pixels."""
    wide = Spec(action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))
    kind = next(iter(wide.images.values()))
    return wide.model_copy(update={"images": {f"camera_{i}": kind for i in range(cameras)}})


def measure(settings: Settings, url: str, folder: Path, report: Report) -> None:
    """Let turns with and without live reports stand between each other, and report."""
    spec, rng = spool_spec(settings.cameras), np.random.default_rng(0)
    blank = Step(spec.zeros(), np.zeros(2, np.float32), 0.0, False, False, False)
    steps = [replace(blank, obs=random_obs(spec, rng)) for _ in range(32)]
    spool = Spool(folder, robot="bench", task="", spec=spec, settings=SpoolSettings())
    uploader = Uploader(folder, url=url, token=None)
    turns: dict[bool, list[Turn]] = {False: [], True: []}
    try:
        for number in range(max(1, round(settings.seconds / TURN_S))):
            report.progress(f"turn {number + 1}")
            for live in (False, True):
                turns[live].append(turn(settings, url, live, steps, spool))
    finally:
        spool.close()
        uploader.close()
    for live, name in ((False, "without"), (True, "with")):
        late = [s for one in turns[live] for s in one.late_s]
        missed = sum(value * settings.rate_hz > 1 for value in late)
        report.add(f"live/{name}/missed", 100 * missed / len(late), "%")
        for quantile, share in QUANTILES.items():
            report.add(f"live/{name}/late_{quantile}", float(np.quantile(late, share)) * 1e3, "ms")
    sent = sum(one.sent for one in turns[True])
    cpu_s = sum(one.cpu_s for one in turns[True])
    report.add("live/reports_per_s", sent / (TURN_S * len(turns[True])), "1/s")
    report.add("live/pictures", float(sum(one.pictures for one in turns[True])), "")
    report.add("live/cpu_share", 100 * cpu_s / (TURN_S * len(turns[True])), "% of a core")
    report.add("live/cpu_per_report", 1e3 * cpu_s / max(1, sent), "ms")


def main(settings: Settings) -> None:
    """Measure and report."""
    sys.setswitchinterval(SWITCH_S)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name, served(Path(name) / "run") as url:
        watcher = multiprocessing.get_context("fork").Process(target=watch, args=(url,))
        watcher.start()
        try:
            if settings.realtime:
                os.sched_setscheduler(
                    0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(50)
                )
            with Report("live cost", as_json=settings.json_) as report:
                measure(settings, url, Path(name) / "spool", report)
        finally:
            watcher.terminate()
            watcher.join()


if __name__ == "__main__":
    main(tyro.cli(Settings))
