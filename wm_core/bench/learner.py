"""``wm bench learner`` measures the time of one update and the learner's peak of memory.

Each size has a process of its own, because a process's peak of memory never falls again.  The
batch is random: its content does not change the cost.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import tyro
from pydantic import Field

from wm_core.agents.agent import AgentCore
from wm_core.bench.contestants import Contestant, ContestantSettings, contestants
from wm_core.bench.report import Report
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.nn.joined import Place, joining
from wm_core.training.allocator import keep_freed_memory
from wm_core.training.device import Device, choose_device
from wm_core.training.workers import number_of_workers

ACTION_SIZE = 6
UNITS = {"seconds_per_step": "s", "cpu_seconds_per_step": "s", "peak_mb": "MB", "parameters": ""}
WARM = 2  #: updates that are not counted; the first also makes the optimiser's state


class LearnerBenchSettings(ContestantSettings):
    """Measure seconds per update and peak memory of the learner."""

    device: Device = Field("cpu", description="Device that the learner runs on")
    threads: int = Field(1, gt=0, description="CPU threads that torch may use, in each worker")
    workers: tuple[int, ...] = Field(
        (1,), description="Numbers of processes to share each update, measured one after another"
    )
    updates: int = Field(5, gt=0, description="Measured updates of each size; figures are medians")


class Cost(NamedTuple):
    """Time and memory of a size."""

    seconds_per_step: float  #: median on the wall
    cpu_seconds_per_step: float  #: median of all threads' and workers', whatever else runs
    peak_mb: float  #: of the whole process, or of the GPU's memory; of the largest worker
    parameters: int


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    settings = tyro.cli(LearnerBenchSettings, args=list(argv), prog="wm bench learner")
    with Report("wm bench learner", as_json=settings.json_) as report:
        for contestant in contestants(settings):
            for workers in settings.workers:
                number_of_workers(workers, contestant.config())
                name = contestant.name if workers == 1 else f"{contestant.name}/{workers}_workers"
                report.progress(f"{name}: {WARM} + {settings.updates} updates")
                cost = measure_together(contestant, settings, workers)
                for figure, unit in UNITS.items():
                    report.add(f"learner/{name}/{figure}", getattr(cost, figure), unit)
    return 0


def measure_together(contestant: Contestant, settings: LearnerBenchSettings, workers: int) -> Cost:
    """Measure updates of ``contestant`` that so many ``workers`` share, each a process."""
    spawn = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(workers, mp_context=spawn) as processes,
    ):
        meeting = Path(folder) / "meeting"
        places = [Place(rank, workers) for rank in range(workers)]
        jobs = [processes.submit(measure, contestant, settings, p, meeting) for p in places]
        costs = [job.result() for job in jobs]
    cpu_s = sum(cost.cpu_seconds_per_step for cost in costs)
    peak_mb = max(cost.peak_mb for cost in costs)
    return costs[0]._replace(cpu_seconds_per_step=cpu_s, peak_mb=peak_mb)


def measure(
    contestant: Contestant,
    settings: LearnerBenchSettings,
    place: Place = Place(),  # noqa: B008 (frozen)
    meeting: Path | None = None,
) -> Cost:
    """Measure updates of ``contestant`` in this process.

    Args:
        contestant: what is measured.
        settings: how often, and on what.
        place: of this process among those that share each update.
        meeting: a file that is not there yet, by which they meet; None for one process.
    """
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    config = contestant.config()
    device = choose_device(settings.device, place.rank if place.size > 1 else None)
    if place.size > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = dist.FileStore(str(meeting), place.size)
        dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.size)
    rows = config.replay.batch // place.size
    own = slice(place.rank * rows, (place.rank + 1) * rows)
    spec = Spec(action=ActionSpec(low=(-1.0,) * ACTION_SIZE, high=(1.0,) * ACTION_SIZE))
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0)).to(device)
    generator = torch.Generator(device).manual_seed(0)
    batch = random_batch(config, generator).map(lambda x: x[own])
    wall, cpu = [], []
    for _ in range(WARM + settings.updates):
        began = time.perf_counter(), time.process_time()
        with joining(place):
            metrics, _ = agent.update(batch, None, generator)
        metrics["loss"].item()  # waits for a GPU
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    if place.size > 1:
        dist.destroy_process_group()
    count = sum(p.numel() for p in agent.parameters())
    return Cost(statistics.median(wall[WARM:]), statistics.median(cpu[WARM:]), peak, count)


def random_batch(config: Config, generator: torch.Generator) -> Batch[torch.Tensor]:
    """Make (B, T) random steps as ``config`` wants them, on the generator's device."""
    device, shape = generator.device, (config.replay.batch, config.replay.length)
    never = torch.zeros(shape, dtype=torch.bool, device=device)
    image = torch.randint(
        0, 256, (*shape, 64, 64, 3), dtype=torch.uint8, generator=generator, device=device
    )
    return Batch(
        obs={"image": image},
        prev_action=torch.rand(*shape, ACTION_SIZE, generator=generator, device=device),
        reward=torch.rand(shape, generator=generator, device=device),
        is_first=never,
        is_last=never,
        is_terminal=never,
    )
