"""``wm bench learner``: how long one update takes and how much memory the learner needs at most.

Each size is measured in a process of its own, because a process's peak of memory never falls
again.  The batch is random: what is in it does not change the cost.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Annotated, NamedTuple

import torch
import tyro
from pydantic import Field

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.bench.contestants import DEFAULT, contestants
from wm_core.bench.report import Report
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, Frozen, Spec
from wm_core.training.device import Device, choose_device

ACTION_SIZE = 6
WARM = 2  #: updates that are not counted; the first also makes the optimiser's state


class LearnerBenchSettings(Frozen):
    """Measure seconds per update and peak memory of the learner."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = False  #: JSON lines instead of a table
    #: whose networks; figures of another preset than the first begin with its name
    presets: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--preset"])] = (DEFAULT,)
    sizes: tuple[str, ...] = ()  #: of the network; none: micro, 1m and 12m where it has them
    device: Device = "cpu"
    threads: int = Field(1, gt=0)
    updates: int = Field(5, gt=0)  #: counted updates of each size; the median counts


class Cost(NamedTuple):
    """What a size costs."""

    seconds_per_step: float  #: median on the wall
    cpu_seconds_per_step: float  #: median over all threads: what other work does not distort
    peak_mb: float  #: of the whole process, or of the GPU's memory
    parameters: int


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    settings = tyro.cli(LearnerBenchSettings, args=list(argv), prog="wm bench learner")
    chosen = contestants(settings.presets, settings.sizes)
    spawn = multiprocessing.get_context("spawn")
    with Report("wm bench learner", as_json=settings.json_) as report:
        for one in chosen:
            report.progress(f"{one.name}: {WARM} + {settings.updates} updates")
            with ProcessPoolExecutor(1, mp_context=spawn) as process:
                cost = process.submit(measure, one.size, settings, one.preset).result()
            report.add(f"learner/{one.name}/seconds_per_step", cost.seconds_per_step, "s")
            report.add(f"learner/{one.name}/cpu_seconds_per_step", cost.cpu_seconds_per_step, "s")
            report.add(f"learner/{one.name}/peak_mb", cost.peak_mb, "MB")
            report.add(f"learner/{one.name}/parameters", cost.parameters, "")
    return 0


def measure(size: str, settings: LearnerBenchSettings, preset: str = DEFAULT) -> Cost:
    """What updates of ``preset`` in ``size`` cost in this process."""
    torch.set_num_threads(settings.threads)
    config, device = presets.make(preset, size), choose_device(settings.device)
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
    """(B, T) steps of noise as ``config`` wants them, on the generator's device."""
    device, shape = generator.device, (config.replay.batch, config.replay.length)
    no = torch.zeros(shape, dtype=torch.bool, device=device)
    image = torch.randint(
        0, 256, (*shape, 64, 64, 3), dtype=torch.uint8, generator=generator, device=device
    )
    return Batch(
        obs={"image": image},
        prev_action=torch.rand(*shape, ACTION_SIZE, generator=generator, device=device),
        reward=torch.rand(shape, generator=generator, device=device),
        is_first=no,
        is_last=no,
        is_terminal=no,
    )
