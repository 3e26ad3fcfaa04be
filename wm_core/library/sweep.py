"""Many trainings, over settings and seeds, on all cores: each one a process, then evaluated.

A sweep is a folder of runs with ``sweep.json``, which says what was asked for and what is done.
The same call again goes on where the last one stopped, however that ended.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from wm_core.contract.errors import SettingsError, shown
from wm_core.contract.files import (
    json_object,
    json_text,
    make_folder,
    read_json,
    try_lock,
    write_durably,
)
from wm_core.library.run_lock import is_running
from wm_core.training.returns import t_interval
from wm_core.training.status import NAME as STATUS_NAME

NAME = "sweep.json"
LOCK_NAME = "sweep.lock"
WM = (sys.executable, "-m", "wm_core.cli")
_LOOK_S = 0.2  #: between two looks at the processes
_STOP_S = 120.0  #: that a training has for its last checkpoint
_LAST = 400  #: characters of a log's last line that are shown


@dataclass(frozen=True)
class Member:
    """One training of a sweep."""

    name: str  #: of its run folder, within the sweep's
    setting: str  #: what it has in common with the runs of other seeds
    seed: int
    words: tuple[str, ...]  #: options of ``wm train``, without --run


@dataclass
class Progress:
    """How far a member is."""

    member: Member
    #: waiting, elsewhere (another process trains it), training, evaluating; then done, stopped
    #: or failed
    state: str = "waiting"
    error: str = ""
    evaluation: dict[str, Any] = field(default_factory=dict)  #: as ``wm evaluate --json`` has it
    status: dict[str, Any] = field(default_factory=dict)  #: as the run's status.json has it
    trained: bool = False

    @property
    def mean(self) -> float | None:
        """Mean return of its evaluation."""
        value = self.evaluation.get("mean")
        return None if value is None else float(value)


@dataclass(frozen=True)
class SettingResult:
    """What the seeds of one setting came to."""

    setting: str
    seeds: tuple[int, ...]  #: of the runs that were evaluated
    means: tuple[float, ...]  #: mean return of each

    @property
    def mean(self) -> float:
        return float(np.mean(self.means))

    @property
    def bounds(self) -> tuple[float, float]:
        """Two-sided 95 % interval of the mean over seeds, by Student's t."""
        return t_interval(self.means)


def plan(
    tasks: Sequence[str],
    presets: Sequence[str],
    seeds: Sequence[int],
    sets: Sequence[str] = (),
    more: Sequence[str] = (),
) -> list[Member]:
    """The trainings of a sweep: every task with every preset, every choice and every seed.

    Args:
        tasks: as for ``wm train``.
        presets: systems to train.
        seeds: of the runs.
        sets: choices such as ``train.replay-ratio=16,64``: an option and its values.
        more: further options of ``wm train``, the same for all.

    Raises:
        SettingsError: for a choice that is written otherwise, or twice the same run.
    """
    options = [_choices(text) for text in sets]
    members = []
    for task, preset, chosen in itertools.product(tasks, presets, itertools.product(*options)):
        parts = [preset, *(f"{name}={value}" for name, value in chosen)]
        if len(tasks) > 1:
            parts.insert(0, task)
        words = ["--task", task, "--preset", preset]
        for name, value in chosen:
            words += _words(name, value)
        for seed in seeds:
            name = "-".join([*map(_slug, parts), f"seed{seed}"])
            whole = (*words, "--seed", str(seed), *more)
            members.append(Member(name, " ".join(parts), seed, whole))
    names = [member.name for member in members]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"expected each run once, got {', '.join(twice)} several times")
    return members


def _choices(text: str) -> list[tuple[str, str]]:
    """(option, value) for each value in a text such as ``train.replay-ratio=16,64``."""
    name, equals, values = text.partition("=")
    found = [value.strip() for value in values.split(",")]
    if not equals or not name.strip("-") or not all(found):
        raise SettingsError(
            f"--set {text!r}: expected an option and its values, as train.replay-ratio=16,64"
        )
    return [(name.removeprefix("--").replace("_", "-"), value) for value in found]


def _words(name: str, value: str) -> list[str]:
    """An option with its value as words of a command line; yes-or-no options are flags."""
    if value.lower() in ("true", "false"):
        group, _, last = name.rpartition(".")
        negated = f"no-{last}" if value.lower() == "false" else last
        return [f"--{group}.{negated}" if group else f"--{negated}"]
    return [f"--{name}", *shlex.split(value)]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=]+", "_", text)


class Sweep:
    """Trains and evaluates the members of a sweep, so many at a time; a context manager.

    Args:
        root: folder of the sweep, which is made where it is missing.
        members: the trainings, from ``plan``.
        jobs: how many processes work side by side.
        evaluate: options of ``wm evaluate``, without --run and --json; they name the episodes.
        command: that runs ``wm``.

    Raises:
        SettingsError: on entering, where another sweep works in ``root``, or where a run of that
            name was begun with other options.
    """

    def __init__(
        self,
        root: Path,
        members: Sequence[Member],
        *,
        jobs: int,
        evaluate: Sequence[str] = (),
        command: Sequence[str] = WM,
    ) -> None:
        self.root, self.jobs = Path(root), max(1, jobs)
        self._evaluate, self._command = tuple(evaluate), tuple(command)
        self.progress = {member.name: Progress(member) for member in members}
        self._known: dict[str, Any] = {}  # as in sweep.json, members of earlier calls included
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = -1

    def __enter__(self) -> Sweep:
        self._known = dict(read_json(self.root / NAME).get("members") or {})
        self._check_options()
        make_folder(self.root)
        lock = try_lock(self.root / LOCK_NAME)
        if lock is None:
            raise SettingsError(f"another sweep works in {self.root}; wait for it or stop it")
        self._lock = lock
        for name, progress in self.progress.items():
            before = self._known.get(name) or {}
            progress.trained = before.get("trained") is True
            if before.get("evaluate") == list(self._evaluate):
                progress.evaluation = dict(before.get("evaluation") or {})
            if progress.trained and progress.evaluation:
                progress.state = "done"
        self._remember()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()
        self._processes.clear()
        os.close(self._lock)

    def run(
        self, stop: Event, on_change: Callable[[Mapping[str, Progress]], None] | None = None
    ) -> None:
        """Train and evaluate all members; ``stop`` ends them, each with a checkpoint.

        Args:
            stop: no process is begun after it is set, and those that train are told to end.
            on_change: called with the progress by name, several times a second.
        """
        told_s: float | None = None
        while True:
            self._collect(stopping=stop.is_set())
            if stop.is_set():
                told_s = self._tell(told_s)
            else:
                self._begin()
            if on_change is not None:
                on_change(self.progress)
            pending = [p for p in self.progress.values() if p.state in ("waiting", "elsewhere")]
            if not self._processes and (stop.is_set() or not pending):
                break
            time.sleep(_LOOK_S)
        for progress in self.progress.values():
            if progress.state in ("waiting", "elsewhere"):
                progress.state = "stopped"

    def results(self) -> list[SettingResult]:
        """What each setting came to, over the seeds that were evaluated."""
        by_setting: dict[str, list[Progress]] = {}
        for progress in self.progress.values():
            by_setting.setdefault(progress.member.setting, []).append(progress)
        return [
            SettingResult(
                setting,
                tuple(p.member.seed for p in members if p.mean is not None),
                tuple(p.mean for p in members if p.mean is not None),
            )
            for setting, members in by_setting.items()
        ]

    def log(self, name: str) -> Path:
        """Where the output of the member ``name`` goes."""
        return self.root / f"{name}.log"

    def _check_options(self) -> None:
        for name, progress in self.progress.items():
            before = (self._known.get(name) or {}).get("words")
            if before is not None and tuple(before) != progress.member.words:
                raise SettingsError(
                    f"{self.root / name} was begun as `wm train {shlex.join(before)}`, and now "
                    f"`{shlex.join(progress.member.words)}` is asked for; choose another --root"
                )

    def _begin(self) -> None:
        """Begin members while there are cores: first what waits, in order."""
        for name, progress in self.progress.items():
            if len(self._processes) >= self.jobs:
                return
            if progress.state not in ("waiting", "elsewhere"):
                continue
            run = self.root / name
            if is_running(run) is not None:  # since before: the last sweep was killed
                progress.state = "elsewhere"
                continue
            if progress.trained:
                progress.state, words = "evaluating", ["evaluate", "--run", str(run), "--json"]
                words += self._evaluate
            else:
                run.mkdir(exist_ok=True)  # --resume takes a folder that is missing for a typo
                progress.state, words = "training", ["train", "--run", str(run), "--resume"]
                words += ["--quiet", *progress.member.words]
            self._start(name, words)

    def _start(self, name: str, words: Sequence[str]) -> None:
        with self.log(name).open("ab") as log:
            log.write(f"$ wm {shlex.join(words)}\n".encode())
            log.flush()
            output = subprocess.PIPE if words[0] == "evaluate" else log
            self._processes[name] = subprocess.Popen(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: a second one would cut it short
                env={"OMP_NUM_THREADS": "1"} | os.environ,
            )

    def _collect(self, *, stopping: bool) -> None:
        """Take in what the processes have come to."""
        for name, process in list(self._processes.items()):
            progress = self.progress[name]
            if progress.state == "training":
                progress.status = read_json(self.root / name / STATUS_NAME)
            if process.poll() is None:
                continue
            if progress.state == "training":
                progress.status = read_json(self.root / name / STATUS_NAME)
            del self._processes[name]
            output = process.stdout.read() if process.stdout is not None else b""
            if process.stdout is not None:
                process.stdout.close()
            self._ended(progress, process.returncode, output, stopping=stopping)
            self._remember()

    def _ended(self, progress: Progress, code: int, output: bytes, *, stopping: bool) -> None:
        name, phase = progress.member.name, progress.status.get("phase")
        if progress.state == "training" and code == 0:
            progress.trained = phase != "stopped" and not stopping
            progress.state = "waiting" if progress.trained else "stopped"
            return
        found = json_object(output)
        if progress.state == "evaluating" and code == 0 and found:
            progress.evaluation, progress.state = found, "done"
            return
        progress.state = "stopped" if stopping else "failed"
        progress.error = "" if stopping else f"exit status {code}: {self._last_line(name)}"

    def _last_line(self, name: str) -> str:
        with self.log(name).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 10 * _LAST))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line]
        return shown(lines[-1], _LAST) if lines else ""

    def _tell(self, told_s: float | None) -> float:
        """Tell the processes to end, once; kill those that have not ended after a while."""
        now_s = time.monotonic()
        for process in self._processes.values():
            if told_s is None:
                process.send_signal(signal.SIGTERM)
            elif now_s - told_s > _STOP_S:
                process.kill()
        return now_s if told_s is None else told_s

    def _remember(self) -> None:
        for name, progress in self.progress.items():
            self._known[name] = {
                "words": list(progress.member.words),
                "trained": progress.trained,
                "evaluate": list(self._evaluate),
                "evaluation": progress.evaluation,
            }
        write_durably(
            self.root / NAME, f"{json_text({'members': self._known}, indent=2)}\n".encode()
        )


def refused(options: Sequence[str]) -> Iterator[str]:
    """Reasons against ``options`` of ``wm train`` that a sweep chooses by itself."""
    own = {"run": "--root", "seed": "--seeds", "preset": "--preset", "task": "--task"}
    for word in options:
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and name in own:
            yield f"{word}: a sweep chooses that by {own[name]}"
        if word in ("--follow", "--resume"):
            yield f"{word}: a sweep goes on by itself, and its runs have to end"
