"""What every preset comes to on a task, given the same CPU time: one JSON file for each.

Each preset is trained by ``wm train`` in a process with one thread, exported, judged by ``wm
evaluate`` beside its untrained self, and timed as a robot would run it.  Whoever stops this, or is
stopped, calls it again: rows that exist are skipped and a run that was cut goes on.

    python -m benchmarks.results --minutes 30           # all presets, then
    python -m benchmarks.results --page                 # the section of docs/results.md
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from pydantic import Field

from benchmarks.results_page import write_page
from wm_core import presets
from wm_core.bench.report import run_line
from wm_core.cli.runs import load_settings
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Frozen
from wm_core.demo.processes import Crew
from wm_core.link.files import write_durably
from wm_core.link.shelf import PolicyShelf

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
JUDGED_SEED = 90_000  #: of the episodes that judge: the same for all, and none of a training
RATE_HZ = 20.0  #: of a robot, at which a policy's step is timed
SMOOTHED = 10  #: episodes that a point of a curve is the mean of
POINTS = 60  #: of a curve, at most
PICTURE_BYTES = 120_000
#: A decoder that only watches lets a preset without one be looked at.
MORE_OPTIONS = {"r2dreamer": ("--world.decoder", "detached")}


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


class VerbFailed(Exception):
    """A verb of ``wm`` that ended badly: what a row then says instead of figures."""

    def __init__(self, verb: str, status: int, said: str) -> None:
        why = " ".join(said.strip().splitlines()[-2:])[-400:]
        super().__init__(f"wm {verb} ended with {status}: {why}")


class Cut(Exception):
    """The work was stopped before its end; there is no row yet."""


def folder_name(task: str) -> str:
    """``task`` as the name of a folder."""
    return re.sub(r"[^\w.-]+", "_", task)


# ------------------------------------------------------------------------------ processes


@dataclass
class Verbs:
    """Runs verbs of ``wm`` one after another, each a process with one thread.

    Args:
        logs: folder of what they print.
        stop: ends the verb that runs; ``Cut`` is raised then.
    """

    logs: Path
    stop: threading.Event
    crew: Crew = field(init=False)

    def __post_init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        env = {"MUJOCO_GL": "egl"} | os.environ | {
            "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0",
        }  # fmt: skip
        self.crew = Crew(self.logs, env)

    def __call__(self, verb: str, *options: str, name: str = "") -> str:
        """What ``wm verb options`` printed."""
        argv = [sys.executable, "-m", "wm_core.cli", verb, *options]
        child = self.crew.start(name or verb, argv)
        while child.process.poll() is None:
            if self.stop.wait(0.2):
                self.crew.stop(child.name, timeout_s=60.0)
                raise Cut
        self.crew.children.remove(child)
        child.stream.close()
        said, status = child.log.read_text(errors="replace"), child.process.returncode
        if self.stop.is_set() or status < 0:  # by a signal: not the verb's own doing
            raise Cut(f"wm {verb} ended with {status}")
        if status:
            raise VerbFailed(verb, status, said)
        return said

    def json(self, verb: str, *options: str, name: str = "") -> list[Row]:
        """The JSON objects that it printed."""
        said = self(verb, *options, "--json", name=name).splitlines()
        return [json.loads(line) for line in said if line.startswith("{")]

    def returns(self, *who: str, episodes: int, name: str) -> Row:
        """Mean, bounds and returns of whoever ``who`` names to ``wm evaluate``."""
        judged = ("--episodes", str(episodes), "--seed", str(JUDGED_SEED))
        got = self.json("evaluate", *who, *judged, name=name)[-1]
        keys = ("mean", "sd", "low", "high", "episodes")
        return {k: rounded(got[k]) for k in keys} | {"returns": rounded(got["returns"])}


# --------------------------------------------------------------------------------- a row


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


def make_row(contest: Contest, stop: threading.Event) -> Row:
    """Train, judge and time one preset; what fails is said in the row.

    Raises:
        Cut: when it was stopped; the run folder is then as ``wm train`` left it.
    """
    run, verbs = contest.run, Verbs(contest.run / "logs", stop)
    run.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    figures: Row = {}
    failed = None
    try:
        verbs("train", *contest.options, "--resume")
        if not is_done(run):
            raise Cut(f"{run} was stopped from elsewhere")
        figures |= judged(contest, verbs)
    except VerbFailed as error:
        failed = str(error)
    return about(contest, load) | progress_of(run) | figures | {"failed": failed}


def judged(contest: Contest, verbs: Verbs) -> Row:
    """What the last published file of a finished run is worth, and what it costs on a robot."""
    run, episodes, ticks = contest.run, contest.settings.episodes, contest.settings.ticks
    shelf = PolicyShelf(run / "policies")
    versions = shelf.versions()
    file = shelf.folder(versions[-1])
    trained = verbs.returns("--policy", str(file), episodes=episodes, name="trained")
    untrained = verbs.returns(
        "--policy", str(shelf.folder(versions[0])), episodes=episodes, name="untrained"
    )
    paced = ("--rate-hz", f"{RATE_HZ:g}", "--ticks", str(ticks))
    _, *rows = verbs.json("bench", "policy", "--policy", str(file), *paced)
    took = {row["name"].rsplit("/", 1)[1]: rounded(row["value"]) for row in rows}
    verbs("show", "--run", str(run))
    if contest.picture is not None:
        shrink(run / "imagined.png", contest.picture)
    return {
        "trained": trained,
        "untrained": untrained,
        "latency": {"rate_hz": RATE_HZ, "ticks": ticks, **took},
        "file_bytes": (file / "policy.onnx").stat().st_size,
    }


def is_done(run: Path) -> bool:
    """Whether the training has used its time, or has all the steps that it may have."""
    status = json.loads((run / "status.json").read_text())
    return bool(
        status["cpu_s"] >= status["cpu_s_goal"]
        or status["agent_steps"] >= status["agent_steps_goal"]
    )


def about(contest: Contest, load: float) -> Row:
    """What was run, by which code, on what machine, beside what else."""
    here, settings = run_line(), contest.settings
    run = contest.run
    return {
        "preset": contest.preset,
        "seed": contest.seed,
        "task": settings.task,
        "size": settings.size,
        "minutes": settings.minutes,
        "parts": parts_of(run),
        "command": shlex.join(["wm", "train", *contest.options]),
        "commit": _json(run / "settings.json").get("about", {}).get("commit", ""),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": here["versions"],
        "cpu": here["cpu"],
        "cores": here["threads"]["cores"],
        "jobs": settings.jobs,
        "load": [round(load, 2), here["load_average"][0]],  # before and after
    }


def parts_of(run: Path) -> Row:
    """The parts of the system that ``run`` trained, in words; empty before it began."""
    try:
        return presets.row_of(load_settings(run).config)._asdict()
    except SettingsError:
        return {}


def progress_of(run: Path) -> Row:
    """How far a run came and at what cost, and its curve, from its metrics."""
    status, path = _json(run / "status.json"), run / "metrics.jsonl"
    lines = [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []
    return {
        "updates": status.get("updates", 0),
        "agent_steps": status.get("agent_steps", 0),
        "episodes": status.get("episodes", 0),
        "cpu_minutes": round(status.get("cpu_s", 0.0) / 60, 2),
        "cpu_s_per_update": cpu_s_per_update(lines),
        "curve": curve(lines),
    }


def cpu_s_per_update(lines: Sequence[Row]) -> float | None:
    """Seconds of an update with everything around it, over the second half of the updates."""
    if not lines:
        return None
    last = lines[-1]
    half = next(line for line in lines if 2 * line["updates"] >= last["updates"])
    updates = last["updates"] - half["updates"]
    return rounded((last["cpu_s"] - half["cpu_s"]) / updates) if updates else None


def curve(lines: Sequence[Row], window: int = SMOOTHED, most: int = POINTS) -> Row:
    """Returns of training episodes, each the mean of the last ``window``, in few points."""
    ended = [line for line in lines if line.get("episode/return") is not None]
    totals = [line["episode/return"] for line in ended]
    means = [float(np.mean(totals[max(0, i + 1 - window) : i + 1])) for i in range(len(totals))]
    chosen = np.unique(np.linspace(0, len(ended) - 1, min(most, len(ended))).round().astype(int))
    return {
        "window": window,
        "cpu_minutes": [round(ended[i]["cpu_s"] / 60, 2) for i in chosen],
        "updates": [ended[i]["updates"] for i in chosen],
        "agent_steps": [ended[i]["agent_steps"] for i in chosen],
        "return": [rounded(means[i]) for i in chosen],
    }


def shrink(source: Path, target: Path, most: int = PICTURE_BYTES) -> None:
    """Write the picture ``source`` as a PNG of less than ``most`` bytes, smaller if it must be."""
    from io import BytesIO

    image = Image.open(source).convert("RGB")
    for colours, scale in ((256, 1.0), (64, 1.0), (64, 0.75), (64, 0.5), (32, 0.33), (16, 0.2)):
        size = (round(image.width * scale), round(image.height * scale))
        small, out = image.resize(size, Image.Resampling.BOX).quantize(colours), BytesIO()
        small.save(out, "PNG", optimize=True)
        if out.tell() < most:
            break
    write_durably(target, out.getvalue())


# ------------------------------------------------------------------------------ all rows


def yardsticks(settings: Settings, stop: threading.Event) -> None:
    """Write what random actions and the scripted expert come to, once per task."""
    folder = folder_name(settings.task)
    path = settings.out / folder / "yardsticks.json"
    if path.exists():
        return
    verbs = Verbs(settings.runs / folder / "logs", stop)
    task, episodes = ("--task", settings.task), settings.episodes
    random = verbs.returns("--random", *task, episodes=episodes, name="random")
    try:
        expert = verbs.returns("--expert", *task, episodes=episodes, name="expert")
    except VerbFailed as error:
        if "no expert" not in str(error):
            raise
        expert = None
    write_json(path, {"task": settings.task, "random": random, "expert": expert})


def write_json(path: Path, value: Row) -> None:
    """``value`` at ``path`` in one piece; keys as they come, numbers of a list in one line."""
    text = json.dumps(value, indent=2)
    numbers = re.compile(r"\[\s+([^\[\]{}\"]*?)\s+\]")
    text = numbers.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    write_durably(path, (text + "\n").encode())


def rounded(value: Any) -> Any:
    """``value``, a number, None or a list of them, to five digits."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def work(contest: Contest, stop: threading.Event, committing: threading.Lock) -> str:
    """Make one row unless it exists; returns what there is to say of it."""
    path, settings = contest.row, contest.settings
    if path.exists():
        if not settings.again:
            return "skipped, its row exists: --again makes it anew"
        path.unlink()
        shutil.rmtree(contest.run, ignore_errors=True)
    row = make_row(contest, stop)
    write_json(path, row)
    if row["failed"] is None and not settings.keep:
        shutil.rmtree(contest.run / "store", ignore_errors=True)
    said = said_of(row)
    if settings.commit:
        with committing:
            commit([path, contest.picture], f"Measure {contest.name} on {row['task']}: {said}")
    return said


def said_of(row: Mapping[str, Any]) -> str:
    """The outcome in a few words."""
    if row["failed"] is not None:
        return f"failed: {row['failed']}"
    got = row["trained"]
    return (
        f"return {got['mean']:.1f} ({got['low']:.1f} .. {got['high']:.1f}) after "
        f"{row['updates']} updates in {row['cpu_minutes']:.0f} CPU minutes"
    )


def commit(paths: Sequence[Path | None], message: str) -> None:
    """Commit the files that exist of ``paths``, and nothing else."""
    files = [str(p.resolve()) for p in paths if p is not None and p.exists()]
    git = ["git", "-C", str(ROOT)]
    subprocess.run([*git, "add", "--", *files], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", message, "--", *files], check=True)


def main(settings: Settings) -> int:
    """Make every row that is missing; returns the exit status."""
    if settings.page:
        write_page(ROOT / "docs" / "results.md", settings.out)
        return 0
    for preset in settings.presets:
        presets.make(preset, settings.size)  # a typo is said before anything is trained
    stop, committing = threading.Event(), threading.Lock()
    contests = [Contest(p, s, settings) for s in settings.seeds for p in settings.presets]
    whole = True

    def one(contest: Contest) -> bool:
        if stop.is_set():
            return False
        try:
            say(contest.name, f"{settings.minutes:g} CPU minutes on {settings.task}")
            say(contest.name, work(contest, stop, committing))
        except Cut as error:
            say(contest.name, f"stopped; call again to go on {error}")
            return False
        return True

    with stopping(stop), ThreadPoolExecutor(settings.jobs) as pool:
        try:
            yardsticks(settings, stop)
            whole = all(list(pool.map(one, contests)))
        except Cut:
            whole = False
        finally:
            stop.set()
    return 0 if whole else 1


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``; every run then leaves a checkpoint."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {n: signal.signal(n, lambda *_: stop.set()) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say(name: str, text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"{name}: {text}\n")
    sys.stderr.flush()


def _json(path: Path) -> Row:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Settings)))
    except SettingsError as error:
        sys.exit(f"results: {error}")
