"""Train every system of a grid for the same CPU time and write one JSON file (a row) about each.

Each is trained by ``wm train`` in a process with one thread, exported, evaluated by ``wm
evaluate`` beside its untrained policy, and timed as a robot would run it.  After an interruption,
start this again: a row is made again only where its settings have changed (see ``question``), and
an unfinished run resumes.

    python -m benchmarks.results --minutes 30           # all presets, then
    python -m benchmarks.results --grid backbones --seeds 0 1 2 --minutes 20 --plan
    python -m benchmarks.results --page                 # the sections of docs/results.md
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

from benchmarks.results import question
from benchmarks.results.contest import Contest, Place, Settings, contests_of
from benchmarks.results.page import write_page
from benchmarks.results.row import make_row
from benchmarks.results.verbs import ROOT, Cut, Row, VerbFailed, Verbs
from wm_core.config import Config
from wm_core.contract.files import read_json, write_durably
from wm_core.library.resume import flat

#: CPU minutes of evaluating and timing a row beside its training
MINUTES_BESIDE = 2.0


def work(contest: Contest, stop: threading.Event, committing: threading.Lock) -> str:
    """Make one row unless it stands; returns the outcome in words."""
    path, settings = contest.row, contest.settings
    stands, why = state_of(contest)
    if stands:
        return f"skipped, its row exists{why}"
    if path.exists():
        say(contest.name, f"its row is made again: {why}")
        path.unlink()
        shutil.rmtree(contest.run, ignore_errors=True)
    elif other := unfinished_with(contest):
        say(contest.name, f"its unfinished run begins again: {other}")
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


def state_of(contest: Contest) -> tuple[bool, str]:
    """Whether the row of ``contest`` stands as it is, and why (not), in words."""
    settings, row = contest.settings, read_json(contest.row)
    if not contest.row.exists():
        return False, ""
    if settings.again:
        return False, "--again"
    before, now = row.get("settings"), question.settings_of(contest.options)
    if before is None or now is None:
        return True, ", with settings that it does not name; --again makes it again"
    if others := question.changes(before, now):
        return False, few(others)
    if settings.code and row.get("code") != question.code_digest(ROOT):
        return False, "--code, and it was trained with other code"
    return True, "; --again makes it again"


def unfinished_with(contest: Contest) -> str:
    """What of the settings of a run without a row has changed, in words; empty: nothing."""
    before = read_json(contest.run / "settings.json")
    now = question.settings_of(contest.options)
    if not before or now is None:
        return ""
    kept = flat({name: before[name] for name in (*Config.model_fields, "task") if name in before})
    del now["train.minutes"]  # another number of minutes goes on
    return few(question.changes(kept, now))


def few(changes: Sequence[str]) -> str:
    """The first three of ``changes`` and how many more there are."""
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return ", ".join(changes[:3]) + more


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
    contests = contests_of(settings)  # a wrong name is refused before any training
    if settings.plan:
        sys.stdout.write(plan_of(contests))
        return 0
    stop, committing = threading.Event(), threading.Lock()
    whole = True

    def one(contest: Contest) -> bool:
        if stop.is_set():
            return False
        try:
            say(contest.name, f"{settings.minutes:g} CPU minutes on {contest.place.name}")
            say(contest.name, work(contest, stop, committing))
        except Cut as error:
            say(contest.name, f"stopped; call again to go on {error}")
            return False
        return True

    with stopping(stop), ThreadPoolExecutor(settings.jobs) as pool:
        try:
            for place in {contest.place.folder: contest.place for contest in contests}.values():
                measure_baselines(settings, place, stop)
            whole = all(list(pool.map(one, contests)))
        except Cut:
            whole = False
        finally:
            stop.set()
    return 0 if whole else 1


def plan_of(contests: Sequence[Contest]) -> str:
    """Say which rows are missing and what CPU time they take, as lines of text."""
    lines, missing = [], 0
    for contest in contests:
        stands, why = state_of(contest)
        missing += not stands
        said = "stands" if stands else f"to make{f' again: {why}' if why else ''}"
        lines.append(f"{contest.place.name} {contest.name}: {said}")
    minutes, jobs = contests[0].settings.minutes, contests[0].settings.jobs
    hours = missing * (minutes + MINUTES_BESIDE) / 60
    lines.append(
        f"{missing} of {len(contests)} rows to make: {missing} x ({minutes:g} + about "
        f"{MINUTES_BESIDE:g} to judge) minutes of CPU time = {hours:.1f} hours, "
        f"{hours / jobs:.1f} with {jobs} side by side on cores of their own"
    )
    return "\n".join(lines) + "\n"


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


def measure_baselines(settings: Settings, place: Place, stop: threading.Event) -> None:
    """Measure the baselines, random actions and the scripted expert, once per task."""
    path = settings.out / place.folder / "yardsticks.json"
    if path.exists():
        return
    verbs = Verbs(settings.runs / place.folder / "logs", stop)
    episodes = settings.episodes
    random = verbs.returns("--random", *place.words, episodes=episodes, name="random")
    try:
        expert = verbs.returns("--expert", *place.words, episodes=episodes, name="expert")
    except VerbFailed as error:
        if "no expert" not in str(error):
            raise
        expert = None
    about = {"task": place.task, "place": place.name, "env": dict(place.env)}
    write_json(path, {**about, "random": random, "expert": expert})


def write_json(path: Path, value: Row) -> None:
    """Write ``value`` to ``path`` durably, with the numbers of a list in one line."""
    text = json.dumps(value, indent=2)
    numbers = re.compile(r"\[\s+([^\[\]{}\"]*?)\s+\]")
    text = numbers.sub(lambda found: f"[{' '.join(found[1].split())}]", text)
    write_durably(path, (text + "\n").encode())
