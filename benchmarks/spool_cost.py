"""Measure what the robot's spool costs: processor time and bytes written to the disk per step.

Variants differ in how steps are written ahead (``spool.sync_s``) and in their cameras; they take
turns, so that whatever else the machine does meets all alike.

    python benchmarks/spool_cost.py --seconds 20 --json
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.spec import ActionSpec, Frozen, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.link.robot.spool import Spool, SpoolSettings

SYNCS = {"off": 0.0, "unsynced": 3600.0, "half_a_second": 0.5}
SIZES = {"64": (64, 64), "vga": (480, 640)}
NOISE = {"flat": 0, "noise": 1}


class Settings(Frozen):
    """Measure what the spool costs by camera and by how steps are written ahead."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    rate_hz: float = Field(20.0, gt=0, description="Steps per second")
    seconds: float = Field(20.0, gt=0, description="Seconds that each variant is measured")


class Cost(NamedTuple):
    """Holds what one turn of a variant cost."""

    steps: int
    cpu_s: float
    log_bytes: int
    chunk_bytes: int
    syncs: int


def steps_of(spec: Spec, *, noise: bool) -> list[Step]:
    """Make 32 steps whose pixels are noise, as of a real camera, or one colour."""
    rng, shape = np.random.default_rng(0), spec.images["image"].shape
    image = np.zeros(shape, np.uint8)
    images = [rng.integers(0, 256, shape, np.uint8) if noise else image for _ in range(32)]
    action = np.zeros(2, np.float32)
    return [Step({"image": image}, action, 0.0, False, False, False) for image in images]


def turn(folder: Path, spec: Spec, steps: list[Step], sync_s: float, settings: Settings) -> Cost:
    """Record one turn at the rate that is set."""
    spool = Spool(folder, robot="bench", task="", spec=spec, settings=SpoolSettings(sync_s=sync_s))
    spool.flush(60.0)
    count = round(settings.seconds * settings.rate_hz)
    begin, cpu_s = time.perf_counter() + 0.05, time.process_time()
    for tick in range(count):
        time.sleep(max(0.0, begin + tick / settings.rate_hz - time.perf_counter()))
        spool.put(steps[tick % len(steps)])
    spool.flush(60.0)
    spent_s = time.process_time() - cpu_s
    counts = spool.counters()
    spool.close()
    syncs = counts.get("log_syncs", 0)
    return Cost(count, spent_s, counts["log_bytes_written"], counts["bytes_on_disk"], syncs)


def main(settings: Settings) -> None:
    """Measure and report."""
    folder = Path(tempfile.mkdtemp())
    try:
        with Report("spool cost", as_json=settings.json_) as report:
            for size, (height, width) in SIZES.items():
                images = {"image": ImageSpec(height=height, width=width)}
                spec = Spec(images=images, action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))
                for kind, noise in NOISE.items():
                    steps = steps_of(spec, noise=bool(noise))
                    costs: dict[str, list[Cost]] = defaultdict(list)
                    for name, sync_s in SYNCS.items():
                        report.progress(f"{size} {kind} {name}")
                        costs[name].append(turn(folder / name, spec, steps, sync_s, settings))
                        shutil.rmtree(folder / name)
                    for name, found in costs.items():
                        add(report, f"spool/{size}_{kind}/{name}", found)
    finally:
        shutil.rmtree(folder)


def add(report: Report, name: str, costs: list[Cost]) -> None:
    """Report the sums of one variant."""
    steps, cpu_s, log_bytes, chunk_bytes, syncs = map(sum, zip(*costs, strict=True))
    report.add(f"{name}/cpu", 1e3 * cpu_s / steps, "ms/step")
    report.add(f"{name}/log", log_bytes / steps, "B/step")
    report.add(f"{name}/chunks", chunk_bytes / steps, "B/step")
    report.add(f"{name}/syncs", syncs, "")


if __name__ == "__main__":
    main(tyro.cli(Settings))
