"""``wm bench learner`` measures the time of one update and the learner's peak of memory.

Each size has a process of its own, because a process's peak of memory never falls again.  The
batch is random: its content does not change the cost.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import torch
import tyro
from pydantic import Field

from wm_core.agents.agent import AgentCore
from wm_core.bench.contestants import Contestant, ContestantSettings, contestants
from wm_core.bench.report import Report
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.training.allocator import keep_freed_memory
from wm_core.training.device import Device, choose_device

ACTION_SIZE = 6
UNITS = {"seconds_per_step": "s", "cpu_seconds_per_step": "s", "peak_mb": "MB", "parameters": ""}
WARM = 2  #: updates that are not counted; the first also makes the optimiser's state


class LearnerBenchSettings(ContestantSettings):
    """Measure seconds per update and peak memory of the learner."""

    device: Device = Field("cpu", description="Device that the learner runs on")
    threads: int = Field(1, gt=0, description="CPU threads that torch may use")
    updates: int = Field(5, gt=0, description="Measured updates of each size; figures are medians")


class Cost(NamedTuple):
    """Time and memory of a size."""

    seconds_per_step: float  #: median on the wall
    cpu_seconds_per_step: float  #: median over all threads, which other work does not distort
    peak_mb: float  #: of the whole process, or of the GPU's memory
    parameters: int


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    settings = tyro.cli(LearnerBenchSettings, args=list(argv), prog="wm bench learner")
    spawn = multiprocessing.get_context("spawn")
    with Report("wm bench learner", as_json=settings.json_) as report:
        for contestant in contestants(settings):
            report.progress(f"{contestant.name}: {WARM} + {settings.updates} updates")
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                cost = process.submit(measure, contestant, settings).result()
            for figure, unit in UNITS.items():
                report.add(f"learner/{contestant.name}/{figure}", getattr(cost, figure), unit)
    return 0


def measure(contestant: Contestant, settings: LearnerBenchSettings) -> Cost:
    """Measure updates of ``contestant`` in this process."""
    torch.set_num_threads(settings.threads)
    keep_freed_memory()
    config, device = contestant.config(), choose_device(settings.device)
    spec = Spec(action=ActionSpec(low=(-1.0,) * ACTION_SIZE, high=(1.0,) * ACTION_SIZE))
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0)).to(device)
    generator = torch.Generator(device).manual_seed(0)
    batch = random_batch(config, generator)
    wall, cpu = [], []
    for _ in range(WARM + settings.updates):
        began = time.perf_counter(), time.process_time()
        metrics, _ = agent.update(batch, None, generator)
        metrics["loss"].item()  # waits for a GPU
        wall.append(time.perf_counter() - began[0])
        cpu.append(time.process_time() - began[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
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
