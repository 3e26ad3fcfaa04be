"""Measure what environments in processes of their own bring: steps a second, and the caller's CPU.

Random actions are taken in 1, 2 and 4 environments, in this process or each in its own.  CPU time
of this process is what a learner in it would lose.

    python benchmarks/env_processes.py --tasks sim:seek CartPole-v1 --json
"""

from __future__ import annotations

import time
from typing import Annotated

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.spec import Frozen
from wm_core.contract.step import Step
from wm_core.training.collect import Collector, RandomActor
from wm_core.training.evaluate import open_env

COUNTS = (1, 2, 4)


class Settings(Frozen):
    """Measure steps a second of environments here and in processes."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    tasks: tuple[str, ...] = Field(("seek", "CartPole-v1"), description="Tasks to take steps in")
    seconds: float = Field(5.0, gt=0, description="Seconds that each variant is measured")


class _Forgetting:
    """Stands for a recorder; keeps nothing."""

    def add(self, step: Step) -> None:
        """Take in a step."""

    def seal(self) -> None:
        """Write nothing."""


def measure(task: str, envs: int, seconds: float, *, process: bool) -> tuple[float, float]:
    """Take steps for so long; returns steps a second, and CPU milliseconds here for each."""
    opened = [open_env(task, seed=i, process=process) for i in range(envs)]
    spec = opened[0][1]
    collector = Collector(
        [adapter for adapter, _ in opened],
        [_Forgetting() for _ in opened],  # type: ignore[misc]
        spec,
    )
    actor, steps = RandomActor(spec.action, np.random.default_rng(0)), 0
    collector.collect(actor, 4 * envs)
    begin_s, cpu_s = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin_s < seconds:
        collector.collect(actor, 8 * envs)
        steps += 8 * envs
    taken_s, used_s = time.perf_counter() - begin_s, time.process_time() - cpu_s
    collector.close()
    return steps / taken_s, 1e3 * used_s / steps


def main(settings: Settings) -> None:
    """Measure every task with every number of environments."""
    with Report("environments in processes", as_json=settings.json_) as report:
        for task in settings.tasks:
            for envs in COUNTS:
                for process in (False, True):
                    name = f"{task}/{envs}{'_processes' if process else ''}"
                    report.progress(name)
                    rate, cpu_ms = measure(task, envs, settings.seconds, process=process)
                    report.add(f"{name}/rate", rate, "steps/s")
                    report.add(f"{name}/cpu_here", cpu_ms, "ms/step")


if __name__ == "__main__":
    main(tyro.cli(Settings))
