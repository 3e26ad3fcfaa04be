"""What is compared, under which conditions, and where the outcome goes."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from wm_core import presets
from wm_core.contract.spec import Frozen

#: A decoder that only watches lets a preset without one be looked at.
MORE_OPTIONS = {"r2dreamer": ("--world.decoder.kind", "detached")}


class Settings(Frozen):
    """Train each preset for the same CPU time and write down what it comes to."""

    presets: tuple[str, ...] = tuple(presets.PRESETS)
    seeds: tuple[int, ...] = (0,)
    task: str = "seek"
    size: str = "micro"
    minutes: float = Field(30.0, gt=0)  #: of CPU time of one thread, for each
    options: str = ""  #: further options of wm train in one string, as --options="--seed 3"
    episodes: int = Field(20, gt=1)  #: that a policy is judged by, with its mean action
    ticks: int = Field(400, gt=0)  #: that its latency is measured over
    jobs: int = Field(1, gt=0)  #: presets side by side
    again: bool = False  #: make rows that exist anew, from the start
    keep: bool = False  #: keep the store of a run whose row is complete
    commit: bool = False  #: git commit each row
    page: bool = False  #: only make the page from the rows that there are
    runs: Path = Path("runs/results")  #: run folders, as RUNS/TASK/PRESET-SEED
    out: Path = Path("docs/results")  #: rows, as OUT/TASK/PRESET-SEED.json
    pictures: Path = Path("docs/algorithms/pictures")  #: imagined beside real, of the first seed


@dataclass(frozen=True)
class Contest:
    """One preset with one seed, where it is trained and where its row goes."""

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
        """Of ``wm train``."""
        how = self.settings
        named = {"preset": self.preset, "size": how.size, "seed": self.seed, "task": how.task,
                 "run": self.run, "train.minutes": f"{how.minutes:g}"}  # fmt: skip
        # Nothing that costs time and that nobody looks at; policies 0 and 1, and the last one.
        quiet = {"train.publish-every": 1_000_000, "train.keep-policies": 100,
                 "train.eval-every": 0, "train.video-every": 0, "threads": 1,
                 "device": "cpu"}  # fmt: skip
        words = [w for k, v in (named | quiet).items() for w in (f"--{k}", str(v))]
        return [*words, *MORE_OPTIONS.get(self.preset, ()), *shlex.split(how.options)]


def folder_name(task: str) -> str:
    """``task`` as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", task)
