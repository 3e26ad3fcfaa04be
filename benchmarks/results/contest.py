"""Settings of the comparison, and one training in it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from benchmarks.results import comparison
from wm_core import presets
from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.spec import Frozen

#: Only to draw pictures: a decoder from which nothing else learns.
MORE_OPTIONS = {"r2dreamer": {"world.decoder.kind": "detached"}}


class Settings(Frozen):
    """Train each system for the same CPU time and write down what it comes to."""

    grid: Literal["presets", "backbones"] = Field(
        "presets",
        description="What is compared: whole presets, or one agent with its backbone exchanged",
    )
    rows: tuple[str, ...] = Field(
        (), description="Only these, such as twm or ssm-gaussian; without any, the whole grid"
    )
    presets: tuple[str, ...] = Field(
        tuple(presets.PRESETS), description="Presets to compare; without any, all of them"
    )
    seeds: tuple[int, ...] = Field((0,), description="Seeds, each of which trains everything")
    task: str = Field("seek", description="Task that every preset learns; see `wm tasks`")
    tasks: tuple[str, ...] = Field(
        comparison.TASKS, description="Tasks of the grid of backbones: seek, recall-N (N: delay)"
    )
    size: str = Field("micro", description="Size of the presets' networks; see `wm presets`")
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
    code: bool = Field(False, description="Make rows again, too, that other code was trained with")
    plan: bool = Field(False, description="Say what is to be made and how long it takes, no more")
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
class Place:
    """A task as a grid has it, and where runs and rows of it lie."""

    name: str  #: in tables
    task: str
    env: Mapping[str, str]  #: options of its environment, by their dotted names
    folder: Path  #: of its rows, below the folder of all

    @property
    def words(self) -> list[str]:
        """Options of a verb that name the task and its environment."""
        return _words({"task": self.task, **self.env})


@dataclass(frozen=True)
class Contest:
    """One system with one seed on one task, its run folder and its row."""

    label: str  #: of the system: its preset, or its cell in the grid
    preset: str
    size: str
    seed: int
    place: Place
    settings: Settings
    own: Mapping[str, str]  #: options that set it apart, by their dotted names
    pictured: bool = False  #: whether a picture of it is kept

    @property
    def name(self) -> str:
        return f"{self.label}-{self.seed}"

    @property
    def run(self) -> Path:
        return self.settings.runs / self.place.folder / self.name

    @property
    def row(self) -> Path:
        return self.settings.out / self.place.folder / f"{self.name}.json"

    @property
    def picture(self) -> Path | None:
        """Where the picture goes; only the first seed of a preset has one."""
        if not self.pictured:
            return None
        task = self.place.task
        name = self.label if task == "seek" else f"{self.label}-{folder_name(task)}"
        return self.settings.pictures / f"{name}.png"

    @property
    def options(self) -> list[str]:
        """Options of ``wm train`` for this training."""
        how = self.settings
        named = {"preset": self.preset, "size": self.size, "seed": self.seed,
                 "task": self.place.task, "run": self.run,
                 "train.minutes": f"{how.minutes:g}"}  # fmt: skip
        # Only policies 0, 1 and the last; no evaluation and no video, which cost time.
        quiet = {"train.publish-every": 1_000_000, "train.keep-policies": 100,
                 "train.eval-every": 0, "train.video-every": 0, "threads": 1,
                 "device": "cpu"}  # fmt: skip
        return [*_words({**named, **quiet, **self.place.env, **self.own}),
                *shlex.split(how.options)]  # fmt: skip


def contests_of(settings: Settings) -> list[Contest]:
    """List every training that ``settings`` ask for, all systems with the first seed first.

    Raises:
        SettingsError: for a preset, size, row or task that does not exist.
    """
    made = _of_presets(settings) if settings.grid == "presets" else _of_backbones(settings)
    labels = list(dict.fromkeys(contest.label for contest in made))
    for row in settings.rows:
        if row not in labels:
            raise SettingsError(nearest(row, labels, what=f"row of the grid {settings.grid}"))
    return [contest for contest in made if not settings.rows or contest.label in settings.rows]


def _of_presets(settings: Settings) -> list[Contest]:
    for preset in settings.presets:
        presets.make(preset, settings.size)  # a wrong name is refused before any training
    place = Place(settings.task, settings.task, {}, Path(folder_name(settings.task)))
    return [
        Contest(
            label=preset, preset=preset, size=settings.size, seed=seed, place=place,
            settings=settings, own=MORE_OPTIONS.get(preset, {}),
            pictured=seed == settings.seeds[0],
        )
        for seed in settings.seeds for preset in settings.presets
    ]  # fmt: skip


def _of_backbones(settings: Settings) -> list[Contest]:
    places = [
        Place(name, *comparison.place_of(name), Path("backbones") / name)
        for name in settings.tasks
    ]
    return [
        Contest(
            label=cell.name, preset=comparison.PRESET, size=comparison.SIZE, seed=seed,
            place=place, settings=settings, own=cell.options,
        )
        for seed in settings.seeds for place in places for cell in comparison.CELLS.values()
    ]  # fmt: skip


def folder_name(task: str) -> str:
    """``task`` as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", task)


def _words(options: Mapping[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]
