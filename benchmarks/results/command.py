"""Train every preset for the same CPU time and write one JSON file (a row) about each.

Each preset is trained by ``wm train`` in a process with one thread, exported, evaluated by ``wm
evaluate`` beside its untrained policy, and timed as a robot would run it.  After an interruption,
start this again: rows that exist are skipped and an unfinished run resumes.

    python -m benchmarks.results --minutes 30           # all presets, then
    python -m benchmarks.results --page                 # the section of docs/results.md
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.results.contest import Contest, Settings, folder_name
from benchmarks.results.page import write_page
from benchmarks.results.row import make_row
from benchmarks.results.verbs import ROOT, Cut, Row, VerbFailed, Verbs
from wm_core import presets
from wm_core.contract.files import write_durably


def work(contest: Contest, stop: threading.Event, committing: threading.Lock) -> str:
    """Make one row unless it exists; returns the outcome in words."""
    path, settings = contest.row, contest.settings
    if path.exists():
        if not settings.again:
            return "skipped, its row exists; --again makes it again"
        path.unlink()
        shutil.rmtree(contest.run, ignore_errors=True)
    row = make_row(contest, stop)
    write_json(path, row)
    if row["failed"] is None and not settings.keep:
        shutil.rmtree(contest.run / "store", ignore_errors=True)
    outcome = outcome_of(row)
    if settings.commit:
        with committing:
            commit([path, contest.picture], f"Measure {contest.name} on {row['task']}: {outcome}")
    return outcome


def outcome_of(row: Row) -> str:
    """Say the outcome of a row in a few words."""
    if row["failed"] is not None:
        return f"failed: {row['failed']}"
    got = row["trained"]
    return (
        f"return {got['mean']:.1f} ({got['low']:.1f} .. {got['high']:.1f}) after "
        f"{row['updates']} updates in {row['cpu_minutes']:.0f} CPU minutes"
    )


def commit(paths: Sequence[Path | None], message: str) -> None:
    """Commit those of ``paths`` that exist, and nothing else."""
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
        presets.make(preset, settings.size)  # a wrong name is refused before any training
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
            measure_baselines(settings, stop)
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
    """Print a line on standard error."""
    sys.stderr.write(f"{name}: {text}\n")
    sys.stderr.flush()


def measure_baselines(settings: Settings, stop: threading.Event) -> None:
    """Measure the baselines, random actions and the scripted expert, once per task."""
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
    """Write ``value`` to ``path`` durably, with the numbers of a list in one line."""
    text = json.dumps(value, indent=2)
    numbers = re.compile(r"\[\s+([^\[\]{}\"]*?)\s+\]")
    text = numbers.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    write_durably(path, (text + "\n").encode())
