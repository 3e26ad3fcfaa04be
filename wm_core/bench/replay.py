"""``wm bench replay`` measures windows per second from a store, in memory and on the disk.

It first fills a store with images like a simulator's: a sky, a floor that moves, a shaded ball.
``warm`` has every image unpacked in memory; ``disk`` keeps none and drops the files from the page
cache before each turn.  It also measures what sealing a chunk costs the robot, and how long a
learner waits for a batch with and without one that is read ahead.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import BenchSettings, Report
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey, ChunkMeta, encode_chunk, read_columns
from wm_core.replay.prefetch import PrefetchingSampler
from wm_core.replay.sampler import Sampler
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.allocator import keep_freed_memory

CHUNK_STEPS = 64
EPISODE = 500
WARM_BYTES = 2**32
UPDATE_S = 0.03  #: between two batches, where waiting is measured
DISK_BATCHES = 2  #: per turn; more would find their files in the page cache again


class ReplayBenchSettings(BenchSettings):
    """Measure windows per second from a store of simulated images."""

    batch: int = Field(16, gt=0, description="Windows in each sampled batch")
    length: int = Field(64, gt=1, description="Agent steps in each window")
    image_size: int = Field(64, gt=0, description="Height and width of images, pixels")
    clock: Literal["wall", "cpu"] = Field("wall", description="Clock; cpu leaves out all waiting")
    steps: int = Field(8192, ge=1024, description="Agent steps that the store holds")
    rounds: int = Field(15, gt=0, description="Turns of each measurement; figures are medians")
    warm_batches: int = Field(20, gt=0, description="Batches per turn from memory")


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    keep_freed_memory()  # as a training does
    settings = tyro.cli(ReplayBenchSettings, args=list(argv), prog="wm bench replay")
    clock = time.perf_counter if settings.clock == "wall" else time.process_time
    with (
        Report("wm bench replay", as_json=settings.json_) as report,
        tempfile.TemporaryDirectory(prefix="wm-bench-replay-") as folder,
    ):
        report.progress(f"making a store of {settings.steps} steps")
        measure_chunks(Path(folder), settings, report, clock)
        report.progress("drawing windows")
        measure_windows(Path(folder), settings, report, clock)
        report.progress("waiting for batches")
        measure_waiting(Path(folder), settings, report)
    return 0


def measure_chunks(
    root: Path, settings: ReplayBenchSettings, report: Report, clock: Callable[[], float]
) -> None:
    """Fill ``root`` and report the cost of sealing, checking and storing a chunk."""
    size = settings.image_size
    spec = Spec(
        images={"image": ImageSpec(height=size, width=size)},
        action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)),
    )
    ledger = Ledger(root / LEDGER_NAME)
    session, images = uuid.uuid4().hex, simulated_images(size, np.random.default_rng(0))
    seal_s, check_s, sizes = [], [], []
    for seq in range(settings.steps // CHUNK_STEPS):
        first = seq * CHUNK_STEPS
        steps = [_step(first + i, next(images)) for i in range(CHUNK_STEPS)]
        key = ChunkKey("bench", session, seq)
        meta = ChunkMeta(**key._asdict(), spec=spec, first_step=first, steps=CHUNK_STEPS)
        start = clock()
        data = encode_chunk(steps, meta)
        sealed = clock()
        read_columns(data)
        check_s.append(clock() - sealed)
        seal_s.append(sealed - start)
        sizes.append(len(data))
        ingest(root, ledger, key, data)
    ledger.close()
    report.add("stream/seal_ms", statistics.median(seal_s) * 1e3, f"ms/{CHUNK_STEPS} steps")
    report.add("stream/check_ms", statistics.median(check_s) * 1e3, f"ms/{CHUNK_STEPS} steps")
    report.add("stream/bytes_per_step", sum(sizes) / (len(sizes) * CHUNK_STEPS), "B")


def measure_windows(
    root: Path, settings: ReplayBenchSettings, report: Report, clock: Callable[[], float]
) -> None:
    """Report windows per second with all images in memory, and with none."""
    for name, cache_bytes, batches in (
        ("warm", WARM_BYTES, settings.warm_batches),
        ("disk", 0, DISK_BATCHES),
    ):
        store = Store(root, cache_bytes=cache_bytes)
        start = clock()
        steps = store.refresh()
        if name == "warm":
            report.add("replay/index/steps_per_s", steps / (clock() - start), "steps/s")
        rng = np.random.default_rng(1)
        sampler = Sampler(store, batch=settings.batch, length=settings.length, rng=rng)
        for segment in store.segments:
            store.observe(store.read(segment.rows(0, segment.length)))
        rates = []
        for _ in range(settings.rounds):
            if name == "disk":
                drop_from_page_cache(root)
            start = clock()
            for _ in range(batches):
                sampler.sample()
            rates.append(batches * settings.batch / (clock() - start))
        report.add(f"replay/{name}/windows_per_s", statistics.median(rates), "windows/s")
        store.close()


def measure_waiting(root: Path, settings: ReplayBenchSettings, report: Report) -> None:
    """Report how long a learner waits for a batch, drawn when it asks and drawn ahead.

    Between two batches it sleeps, as if another device computed the update.
    """
    for name, kind in (("plain", Sampler), ("prefetch", PrefetchingSampler)):
        store = Store(root, cache_bytes=WARM_BYTES)
        store.refresh()
        rng = np.random.default_rng(1)
        sampler = kind(store, batch=settings.batch, length=settings.length, rng=rng)
        waited_ms = []
        for _ in range(settings.rounds * 4):
            start = time.perf_counter()
            sampler.sample()
            waited_ms.append(1e3 * (time.perf_counter() - start))
            time.sleep(UPDATE_S)
        report.add(f"replay/{name}/wait_ms", statistics.median(waited_ms), "ms/batch")
        sampler.close()
        store.close()


def simulated_images(size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield images (size, size, 3) uint8, smooth like a simulator's and never the same."""
    y, x = np.mgrid[:size, :size]
    sky = np.stack([60 + y, 110 + y, 190 + y // 2], -1).clip(0, 255).astype(np.uint8)
    floor = y > 0.7 * size
    ball, speed = rng.uniform(0.3, 0.7, 2) * size, np.zeros(2)
    tick = 0
    while True:
        speed = 0.95 * speed + rng.normal(0, 0.02 * size, 2)
        ball = (ball + speed) % size
        image = sky.copy()
        dark = ((x + tick) // 4 + y // 4) % 2 == 0
        image[floor & dark], image[floor & ~dark] = (40, 60, 90), (60, 85, 120)
        distance = np.hypot(x - ball[0], y - ball[1])
        light = (230 - 8 * np.hypot(x - ball[0] + 2, y - ball[1] + 2)).clip(60, 255)
        shade = np.stack([light, light / 3, light / 4], -1).astype(np.uint8)
        image[distance < size / 7] = shade[distance < size / 7]
        yield image
        tick += 1


def drop_from_page_cache(root: Path) -> None:
    """Make the next read of every chunk file come from the disk."""
    for path in root.glob("*/*/*.mcap"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _step(number: int, image: np.ndarray) -> Step:
    return Step(
        obs={"image": image},
        action=np.full(2, np.sin(number), np.float32),
        reward=1.0,
        is_first=number % EPISODE == 0,
        is_last=number % EPISODE == EPISODE - 1,
        is_terminal=False,
        stamp_ns=10**18 + number * 50_000_000,
    )
