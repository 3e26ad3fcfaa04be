"""What are 20 demonstrations worth: the return after the same robot time, with and without them.

The scripted expert's episodes are recorded once.  Each arm trains on the task for the same number
of own agent steps, by ``wm train`` in a process with one thread, and is evaluated on the same 20
episodes.  One JSON file (a row) is written for each arm and seed; what is there is not made again,
and an unfinished run resumes.

    python -m benchmarks.demonstrations                # every row that is missing
    python -m benchmarks.demonstrations --plan         # which ones those are
    python -m benchmarks.demonstrations --table        # the section of docs/results.md
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from pydantic import Field

from benchmarks.results.command import commit, stopping, write_json
from benchmarks.results.verbs import Cut, Row, Verbs
from wm_core.contract.files import read_json
from wm_core.contract.spec import Frozen
from wm_core.library.demonstrate import record_expert
from wm_core.training.provenance import commit as commit_of_code

#: arm -> (what it is, its options); DEMOS stands for the folder of the demonstrations
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "none": ("no demonstrations", ()),
    "longer": ("none, and as many own steps more as the demonstrations have", ()),
    "replayed": ("a quarter of every batch", ("--replay.demonstrations", "DEMOS")),
    "cloned": (
        "a quarter of every batch, and their actions cloned",
        (
            *("--replay.demonstrations", "DEMOS", "--behavior.clone.scale", "0.1"),
            *("--behavior.clone.steps", "demonstrations"),
        ),
    ),
}
#: what ``seek`` is learnt well with, and no policy file, as networks are evaluated themselves
LEARNING = (
    *("--preset", "r2dreamer", "--size", "micro", "--world.discount-horizon", "50"),
    *("--train.explore.hold", "2", "--train.replay-ratio", "64", "--no-publish"),
    *("--behavior.gradient", "auto"),
    *("--train.video-every", "0", "--train.eval-episodes", "10"),
    *("--threads", "1", "--quiet", "--device", "cpu"),
)


class Settings(Frozen):
    """Measure what demonstrations are worth."""

    task: str = Field("seek", description="Task with a scripted expert")
    out: Path = Field(Path("docs/results/demonstrations"), description="Folder of the rows")
    runs: Path = Field(Path("runs/demonstrations"), description="Folder of the runs")
    seeds: tuple[int, ...] = Field((0, 1, 2), description="Seeds of every arm")
    arms: tuple[str, ...] = Field(tuple(ARMS), description="Arms to measure")
    shown: int = Field(20, gt=0, description="Episodes of the expert")
    steps: int = Field(2000, gt=0, description="Own agent steps of each run")
    prefill: int = Field(1000, ge=0, description="Of them, steps of random actions")
    eval_every: int = Field(500, ge=0, description="Own steps between two points of a curve")
    episodes: int = Field(20, gt=1, description="Episodes of the evaluation at the end")
    more: str = Field("", description="Options of wm train for all arms: --more='--seed 1'")
    commit: bool = Field(False, description="Commit each row when it is made")
    plan: bool = Field(False, description="Say which rows are missing, and make none")
    table: bool = Field(False, description="Print the table of the rows that are there")


def main(settings: Settings) -> int:
    """Make every row that is missing; returns the exit status."""
    if settings.table:
        sys.stdout.write(table(settings))
        return 0
    missing = [
        (arm, seed)
        for seed in settings.seeds
        for arm in settings.arms
        if read_json(row_path(settings, arm, seed)).get("words") != told(settings, arm, seed)
    ]
    if settings.plan:
        sys.stdout.writelines(f"{arm} seed {seed}: to make\n" for arm, seed in missing)
        return 0
    stop = threading.Event()
    with stopping(stop):
        try:
            verbs = Verbs(settings.runs / "logs", stop)
            record(settings, verbs)
            for arm, seed in missing:
                say(f"{arm} seed {seed}: {settings.steps} own steps")
                row = make_row(settings, arm, seed, verbs)
                path = row_path(settings, arm, seed)
                write_json(path, row)
                got = row["trained"]
                outcome = f"return {got['mean']:.1f} ({got['low']:.1f} .. {got['high']:.1f})"
                say(f"{arm} seed {seed}: {outcome} in {row['cpu_minutes']:.1f} CPU minutes")
                if settings.commit:
                    commit([path], f"Measure {settings.task} with demonstrations {arm}: {outcome}")
        except Cut as error:
            say(f"stopped; call again to go on {error}")
            return 1
    return 0


def record(settings: Settings, verbs: Verbs) -> None:
    """Record the expert's episodes and the baselines, where they are not there yet."""
    path, root = settings.out / "yardsticks.json", demonstrations(settings)
    about = root / "recorded.json"
    if not about.exists():
        ended = record_expert(settings.task, root, episodes=settings.shown, seed=77)
        steps = sum(episode.length + 1 for episode in ended)
        mean = float(np.mean([episode.total for episode in ended]))
        write_json(about, {"episodes": len(ended), "steps": steps, "mean": mean})
        say(f"{len(ended)} episodes of the expert, {steps} steps, mean return {mean:.1f}")
    if not path.exists():
        task, n = ("--task", settings.task), settings.episodes
        both = {
            name: verbs.returns(f"--{name}", *task, episodes=n, name=name)
            for name in ("random", "expert")
        }
        settings.out.mkdir(parents=True, exist_ok=True)
        write_json(path, {"task": settings.task, "shown": read_json(about), **both})


def demonstrations(settings: Settings) -> Path:
    """Where the expert's episodes lie."""
    return settings.runs / f"shown-{settings.task}-{settings.shown}"


def row_path(settings: Settings, arm: str, seed: int) -> Path:
    """Where the row of an arm and a seed lies."""
    return settings.out / f"{arm}-{seed}.json"


def told(settings: Settings, arm: str, seed: int) -> list[str]:
    """The options of ``wm train`` that decide a row."""
    steps = settings.steps
    if arm == "longer":
        steps += int(read_json(demonstrations(settings) / "recorded.json").get("steps", 0))
    return [
        *("--task", settings.task, *LEARNING, "--seed", str(seed), "--train.steps", str(steps)),
        *(
            "--train.prefill",
            str(settings.prefill),
            "--train.eval-every",
            str(settings.eval_every),
        ),
        *("DEMOS" if word == "DEMOS" else word for word in ARMS[arm][1]),
        *shlex.split(settings.more),
    ]


def make_row(settings: Settings, arm: str, seed: int, verbs: Verbs) -> Row:
    """Train one arm with one seed, and evaluate what it has learnt."""
    run, words = settings.runs / f"{arm}-{seed}", told(settings, arm, seed)
    folder = str(demonstrations(settings))
    options = [folder if word == "DEMOS" else word for word in words]
    resume = ("--resume",) if (run / "settings.json").exists() else ()
    verbs("train", "--run", str(run), *options, *resume, name=run.name)
    trained = verbs.returns(
        "--run", str(run), "--checkpoint", episodes=settings.episodes, name=f"{run.name}-evaluate"
    )
    status = read_json(run / "status.json")
    return {
        "arm": arm, "about": ARMS[arm][0], "seed": seed, "task": settings.task, "words": words,
        "commit": commit_of_code(), "updates": status["updates"],
        "agent_steps": status["agent_steps"], "cpu_minutes": round(status["cpu_s"] / 60, 2),
        "curve": curve(run), "trained": trained,
    }  # fmt: skip


def curve(run: Path) -> list[list[float]]:
    """[own agent steps, mean return] of every evaluation while ``run`` was trained."""
    found: dict[float, float] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        if "eval/return" in values:
            found[values["agent_steps"]] = values["eval/return"]
    return [[steps, float(f"{mean:.5g}")] for steps, mean in sorted(found.items())]


def table(settings: Settings) -> str:
    """The rows as a table of Markdown: a line an arm, means over seeds."""
    marks = read_json(settings.out / "yardsticks.json")
    lines = ["| demonstrations | " + " | ".join(f"seed {s}" for s in settings.seeds)]
    lines[0] += " | mean, 95 % bounds over seeds | CPU min |"
    lines.append("|---|" + "---|" * (len(settings.seeds) + 2))
    for arm in settings.arms:
        rows = [read_json(row_path(settings, arm, seed)) for seed in settings.seeds]
        means = [row["trained"]["mean"] for row in rows if row]
        each = [f"{row['trained']['mean']:.1f}" if row else "" for row in rows]
        minutes = [row["cpu_minutes"] for row in rows if row]
        spent = f"{np.mean(minutes):.1f}" if minutes else ""
        lines.append(f"| {ARMS[arm][0]} | {' | '.join(each)} | {bounds(means)} | {spent} |")
    for name in ("random", "expert"):
        if name in marks:
            got, blanks = marks[name], " | " * len(settings.seeds)
            span = f"{got['mean']:.1f} ({got['low']:.1f} .. {got['high']:.1f})"
            lines.append(f"| *{name}* {blanks}| {span} of episodes | |")
    return "\n".join(lines) + "\n"


def bounds(means: list[float]) -> str:
    """The mean of ``means`` with the bounds of Student's t over seeds."""
    if len(means) < 2:
        return f"{means[0]:.1f}" if means else ""
    t = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}.get(len(means), 2.3)
    half = t * float(np.std(means, ddof=1)) / math.sqrt(len(means))
    return f"{np.mean(means):.1f} ({np.mean(means) - half:.1f} .. {np.mean(means) + half:.1f})"


def say(text: str) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    given: Any = tyro.cli(Settings)
    raise SystemExit(main(given))
