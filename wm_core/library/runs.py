"""The training runs in a folder and how each one is doing; nothing is made or changed.

Folders that are no runs, and runs whose files are damaged, are listed as such.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from wm_core.contract.errors import SettingsError, WmError, nearest, shown
from wm_core.contract.files import json_object, read_json, siblings
from wm_core.library.run_folder import SETTINGS_NAME
from wm_core.library.run_lock import is_running
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.store.ledger import LEDGER_NAME
from wm_core.training.status import NAME as STATUS_NAME

ENDED = ("done", "stopped", "diverged", "failed")  #: phases after which no process goes on
_DEPTH = 4  #: folders within folders that are looked into
_TAIL_BYTES = 8 << 20  #: of metrics.jsonl that are read, from its end
_MARKS = (SETTINGS_NAME, STATUS_NAME, "metrics.jsonl", "checkpoints")  #: one of these makes a run


@dataclass(frozen=True)
class RunFacts:
    """What a run's own files say about it; None where they say nothing."""

    name: str  #: path below the folder that was listed
    path: Path
    #: the phase of a run that a process works on; done, stopped, diverged or failed of one that
    #: ended; killed where a process ended without a word; empty before its first report;
    #: damaged; foreign for what is no run
    state: str
    note: str = ""  #: what is damaged or foreign, or what the run waits for
    pid: int | None = None  #: of the process that works on it now
    preset: str = ""
    size: str = ""
    task: str = ""
    seed: int | None = None
    agent_steps: int | None = None
    updates: int | None = None
    episodes: int | None = None
    last_return: float | None = None  #: of the last episode of the training
    evaluated: float | None = None  #: mean return of the last evaluation
    best: float | None = None  #: highest mean return of an evaluation
    policy: int | None = None  #: newest published version
    cpu_s: float | None = None  #: CPU time of all its processes
    wall_s: float | None = None  #: from its first line of metrics to its last report
    reported: float | None = None  #: when it wrote its status last, seconds since the epoch

    def as_json(self) -> dict[str, Any]:
        """The facts as values that JSON knows, with the time also as a date."""
        facts = asdict(self) | {"path": str(self.path)}
        when = None if self.reported is None else datetime.fromtimestamp(self.reported)
        return facts | {"date": when and when.astimezone().isoformat(timespec="seconds")}


def list_runs(root: str | Path = "runs") -> list[RunFacts]:
    """The runs in ``root``, or in its folders, by name; folders without a run come as foreign.

    Raises:
        SettingsError: where ``root`` does not exist (naming the nearest) or is no folder.
    """
    root = Path(root)
    if not root.is_dir():
        if not root.exists():
            raise SettingsError(
                f"{nearest(root.name, siblings(root), what=f'folder of runs in {root.parent}')}; "
                "wm train --run DIR/NAME makes the first"
            )
        raise SettingsError(f"{root}: expected a folder of runs, got a file")
    if _is_run(root):
        return [facts_of(root, root.name or str(root.resolve()))]
    seen = {os.path.realpath(root)}
    return sorted(_found(root, root, seen, _DEPTH), key=lambda facts: facts.name)


def facts_of(run: Path, name: str = "") -> RunFacts:
    """What the files of ``run`` say; ``name`` is what it is listed as, the folder's by default."""
    settings, status = _object(run / SETTINGS_NAME), _object(run / STATUS_NAME)
    damaged = [
        f"{file} cannot be read"
        for file, values in ((SETTINGS_NAME, settings), (STATUS_NAME, status))
        if values is None
    ]
    settings, status = settings or {}, status or {}
    pid = is_running(run)
    state = _state(status, pid, damaged)
    lines = _Metrics(run / "metrics.jsonl")
    evaluation = _mapping(status.get("evaluation"))
    best = _mapping(evaluation.get("best"))
    last = _policy(run)
    reported = _number(status.get("time"))
    began = lines.first_time
    note = "; ".join(damaged) or shown(status.get("waiting_for") or "" if pid is not None else "")
    return RunFacts(
        name=name or run.name,
        path=run,
        state=state,
        note=note,
        pid=pid,
        preset=_text(settings.get("preset")),
        size=_text(settings.get("size")),
        task=_text(settings.get("task")),
        seed=_count(settings.get("seed")),
        agent_steps=_count(status.get("agent_steps")),
        updates=_count(status.get("updates")),
        episodes=_count(status.get("episodes")),
        last_return=_number(status.get("last_return")),
        evaluated=_first(_number(evaluation.get("mean")), lines.last),
        best=_first(_number(best.get("mean")), _number(evaluation.get("best")), lines.best),
        policy=_first(last, _published(status)),
        cpu_s=_number(status.get("cpu_s")),
        wall_s=None if reported is None or began is None else max(0.0, reported - began),
        reported=reported,
    )


def _found(root: Path, folder: Path, seen: set[str], depth: int) -> Iterator[RunFacts]:
    """The runs below ``folder``, and its folders without any if it is ``root`` itself."""
    try:
        entries = sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    except OSError as error:
        name = str(folder.relative_to(root))
        yield RunFacts(name, folder, "foreign", note=f"cannot be read: {error.strerror}")
        return
    for entry in entries:
        real = os.path.realpath(entry)
        if real in seen:  # a link back to where we came from
            continue
        seen.add(real)
        name = str(entry.relative_to(root))
        if _is_run(entry):
            yield facts_of(entry, name)
            continue
        deeper = depth > 0 and not (entry / LEDGER_NAME).exists()  # a store holds no runs
        below = list(_found(root, entry, seen, depth - 1)) if deeper else []
        yield from below
        if not below and folder == root:
            yield RunFacts(name, entry, "foreign", note="no run is in it")


def _is_run(folder: Path) -> bool:
    return any(os.path.lexists(folder / mark) for mark in _MARKS)


def _state(status: dict[str, Any], pid: int | None, damaged: list[str]) -> str:
    phase = _text(status.get("phase"))
    if pid is not None:
        return phase if phase and phase not in ENDED else "starting"
    if damaged:
        return "damaged"
    if phase in ENDED:
        return phase
    return "killed" if phase else "empty"


def _policy(run: Path) -> int | None:
    try:
        last = PolicyRepository(run / "policies").latest()
    except (OSError, ValueError, WmError):
        return None
    return None if last is None else last.version


def _published(status: dict[str, Any]) -> int | None:
    version = _count(status.get("published_version"))
    return version if version is not None and version >= 0 else None


class _Metrics:
    """What ``metrics.jsonl`` says of evaluations, and when its first line was written."""

    def __init__(self, path: Path) -> None:
        self.first_time: float | None = None
        self.last: float | None = None
        self.best: float | None = None
        try:
            with path.open("rb") as file:
                self.first_time = _number(json_object(file.readline(_TAIL_BYTES)).get("time"))
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                for line in file:
                    if b'"eval/return"' in line:
                        self._take(_number(json_object(line).get("eval/return")))
        except OSError:
            return

    def _take(self, mean: float | None) -> None:
        if mean is not None:
            self.last = mean
            self.best = mean if self.best is None else max(self.best, mean)


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object in ``path``; empty where there is no such file, None where it is damaged."""
    if not os.path.lexists(path):
        return {}
    found = read_json(path)
    return found or (None if not _is_empty_object(path) else {})


def _is_empty_object(path: Path) -> bool:
    try:
        return json.loads(path.read_bytes()) == {}
    except (OSError, ValueError, RecursionError):
        return False


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return shown(value) if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def age(reported: float | None, now: float | None = None) -> str:
    """How long ago ``reported`` was, in words: 40 s, 5 min, 3 h, 12 d."""
    if reported is None:
        return ""
    seconds = max(0.0, (time.time() if now is None else now) - reported)
    for name, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 86400:.0f} d"
