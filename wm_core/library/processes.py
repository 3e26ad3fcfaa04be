"""How the processes of a run are placed on the machine: its workers, devices and threads."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from wm_core.contract.spec import Spec
from wm_core.library.run_folder import TrainSettings
from wm_core.training.workers import (
    WorkerOrder,
    Workers,
    number_of_workers,
    place_of_torchrun,
    work_under_torchrun,
)


def start_workers(settings: TrainSettings, spec: Spec, device: torch.device) -> Workers | None:
    """Start the other workers of the run that ``settings`` describe; None where it has none.

    Args:
        settings: of the run.
        spec: of what is learnt.
        device: of this process.

    Raises:
        WorkersFailed: where one does not begin.
    """
    count = number_of_workers(settings.workers, settings.config)
    if count == 1:
        return None
    order = WorkerOrder(
        config=settings.config,
        spec=spec,
        store=settings.store_root,
        device=settings.device,
        threads=threads(settings),
        answer_s=settings.worker_timeout_s,
    )
    return Workers(order, count, device)


def device_index(settings: TrainSettings) -> int | None:
    """Number of the GPU that the first worker takes; None where there is no other."""
    place = place_of_torchrun()
    if place is not None:
        return int(os.environ.get("LOCAL_RANK", 0))
    return 0 if settings.workers > 1 else None


def threads(settings: TrainSettings) -> int:
    """CPU threads of torch in each worker: as was asked, or its share of the cores.

    One core is left for others, or one for each of the run's collectors.

    Torch's threads wait for each other by spinning: where another process takes one of their
    cores, as a simulator or a robot's nodes do, an update takes forty times as long.
    """
    if settings.threads is not None:
        return settings.threads
    cores, here = os.cpu_count() or 2, int(os.environ.get("LOCAL_WORLD_SIZE", settings.workers))
    others = settings.train.collectors
    return max(1, cores - max(1, others) if here == 1 else (cores - others) // here)


def is_other_worker() -> bool:
    """Whether torchrun started this process beside the first one, which owns the run."""
    place = place_of_torchrun()
    return place is not None and place.rank > 0


def work_for_first(store: Path | None) -> None:
    """Compute shares of the updates for the first of torchrun's processes, until it ends.

    Args:
        store: this machine's copy of the run's store; None: where the first process has it.

    Raises:
        WorkersFailed: where another worker is lost.
    """
    work_under_torchrun(store)
