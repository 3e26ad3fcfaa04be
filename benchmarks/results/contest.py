"""Settings of the comparison, and one training in it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from wm_core import presets
from wm_core.contract.spec import Frozen

#: Only to draw pictures: a decoder from which nothing else learns.
MORE_OPTIONS = {"r2dreamer": ("--world.decoder.kind", "detached")}


class Settings(Frozen):
    """Train each preset for the same CPU time and write down what it comes to."""

    presets: tuple[str, ...] = Field(
        tuple(presets.PRESETS), description="Presets to compare; without any, all of them"
    )
    seeds: tuple[int, ...] = Field((0,), description="Seeds, each of which trains every preset")
    task: str = Field("seek", description="Task that every preset learns; see `wm tasks`")
    size: str = Field("micro", description="Size of the networks; see `wm presets`")
    minutes: float = Field(
        30.0, gt=0, description="Minutes of CPU time on one thread, for each training"
    )
    options: str = Field(
        "", description="More options of wm train as one string, as --options='--seed 3'"
    )
    episodes: int = Field(20, gt=1, description="Episodes of each evaluation, 2 or more")
    ticks: int = Field(400, gt=0, description="Ticks over which the latency is measured")
    jobs: int = Field(1, gt=0, description="Trainings that run at the same time")
    again: bool = Field(False, description="Make rows that exist again, from the start")
    keep: bool = Field(False, description="Keep the store of a run whose row is complete")
    commit: bool = Field(False, description="Commit each new row with git")
    page: bool = Field(False, description="Write only the page, from the rows that exist")
    runs: Path = Field(
        Path("runs/results"), description="Folder of the runs, each at RUNS/TASK/PRESET-SEED"
    )
    out: Path = Field(
        Path("docs/results"), description="Folder of the rows, each at OUT/TASK/PRESET-SEED.json"
    )
    pictures: Path = Field(
        Path("docs/algorithms/pictures"), description="Folder for pictures of the first seed"
    )


@dataclass(frozen=True)
class Contest:
    """One preset with one seed, its run folder and its row."""

    preset: str
    seed: int
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.preset}-{self.seed}"

    @property
    def run(self) -> Path:
        return self.settings.runs / folder_name(self.settings.task) / self.name

    @property
    def row(self) -> Path:
        return self.settings.out / folder_name(self.settings.task) / f"{self.name}.json"

    @property
    def picture(self) -> Path | None:
        """Where the picture goes; only the first seed has one."""
        if self.seed != self.settings.seeds[0]:
            return None
        task = self.settings.task
        name = self.preset if task == "seek" else f"{self.preset}-{folder_name(task)}"
        return self.settings.pictures / f"{name}.png"

    @property
    def options(self) -> list[str]:
        """Options of ``wm train`` for this training."""
        how = self.settings
        named = {"preset": self.preset, "size": how.size, "seed": self.seed, "task": how.task,
                 "run": self.run, "train.minutes": f"{how.minutes:g}"}  # fmt: skip
        # Only policies 0, 1 and the last; no evaluation and no video, which cost time.
        quiet = {"train.publish-every": 1_000_000, "train.keep-policies": 100,
                 "train.eval-every": 0, "train.video-every": 0, "threads": 1,
                 "device": "cpu"}  # fmt: skip
        words = [w for k, v in (named | quiet).items() for w in (f"--{k}", str(v))]
        return [*words, *MORE_OPTIONS.get(self.preset, ()), *shlex.split(how.options)]


def folder_name(task: str) -> str:
    """``task`` as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", task)
