"""Kills a training again and again, at every kind of moment, and looks at what it left.

``python -m benchmarks.run_kills --kills 100``.  A moment is a phase of ``status.json`` or a file
that is being written, and a random delay after it.  After each kill the plain command goes on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import tyro
from pydantic import BaseModel, Field

from benchmarks.chaos.learner_kills import TINY
from wm_core.contract.errors import WmError
from wm_core.contract.policy_folder import PolicyFolder, version_folder, versions_in
from wm_core.store.verify import verify_store
from wm_core.training import checkpoint

#: more options of the run: everything that writes is on, and often due
OPTIONS = (
    *("--train.steps", "10000000", "--train.eval-every", "128", "--train.eval-episodes", "2"),
    *("--train.keep-checkpoints", "2", "--replay.store-max-bytes", "3000000"),
)
COUNTERS = ("updates", "agent_steps", "episodes", "published_version", "cpu_s")
MAX_POLICY_BYTES = 1 << 29
MOST_UNFINISHED = 8  #: temporary files that a kill may leave at once
DEADLINE_S = 900.0  #: for a start on a busy machine
PATIENCE_S = 20.0  #: for a moment that a training may pass unseen


class RunKills(BaseModel):
    """Kill a run with SIGKILL, again and again, and compare what it goes on from."""

    root: Path = Path("runs/run_kills")  #: folder for all of it; it must not exist yet
    task: str = "CartPole-v1"  #: what is trained
    kills: int = 100
    publish: bool = True  #: export policies too
    seed: int = 0


class KillsReport(BaseModel):
    """What the kills met and what was found."""

    kills: int = 0
    aimed: dict[str, int] = Field(default_factory=dict)  #: kills by the moment that was waited for
    hit: dict[str, int] = Field(default_factory=dict)  #: kills by what was half done
    last: dict[str, float] = Field(default_factory=dict)  #: counters in the end
    redone: int = 0  #: updates that were done twice
    took_s: float = 0.0
    faults: list[str] = Field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.faults


class Run:
    """A training in a process of its own, and the highest that its status has shown."""

    def __init__(self, settings: RunKills, report: KillsReport) -> None:
        self.folder, self._settings, self._report = settings.root / "run", settings, report
        self._process: subprocess.Popen[bytes] | None = None
        self._highest: dict[str, float] = {}
        self._updates = 0

    def start(self) -> None:
        """Start it by the plain command, to go on where it can."""
        command = [sys.executable, "-m", "wm_core.cli", "train", "--run", str(self.folder)]
        command += ["--task", self._settings.task, *TINY, *OPTIONS, "--quiet"]
        command += [] if self._settings.publish else ["--no-publish"]
        command += ["--resume"] if self.folder.exists() else []
        with (self._settings.root / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(DEADLINE_S)

    def close(self) -> None:
        """End it where it still runs."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def wait(self, moment: str) -> None:
        """Wait for a moment, or for ``PATIENCE_S`` of a running training where it does not come.

        Raises:
            RuntimeError: where the process ends or does not begin to train.
        """
        assert self._process is not None
        begun_s, end_s = time.monotonic(), None
        before = set(self._files(moment))
        while not self._is(moment, before):
            if self._process.poll() is not None:
                raise RuntimeError(f"the training ended by itself while {moment} was waited for")
            if self._runs() and end_s is None:
                end_s = time.monotonic() + PATIENCE_S
            if end_s is not None and time.monotonic() > end_s:
                return
            if time.monotonic() > begun_s + DEADLINE_S:
                raise RuntimeError(f"the training did not begin within {DEADLINE_S:.0f} s")
            time.sleep(0.001 if moment in FILES else 0.02)
            self.look()

    def _is(self, moment: str, before: set[Path]) -> bool:
        if moment in FILES:
            return bool(set(self._files(moment)) - before)
        if moment == "importing":
            return True
        return self._runs() and self.status().get("phase") == moment

    def _runs(self) -> bool:
        """Whether the present process has begun to train."""
        return self._process is not None and self.status().get("pid") == self._process.pid

    def _files(self, moment: str) -> list[Path]:
        return [p for pattern in FILES.get(moment, ()) for p in self.folder.glob(pattern)]

    def status(self) -> dict[str, Any]:
        """Read ``status.json``; empty where there is none."""
        try:
            return dict(json.loads((self.folder / "status.json").read_bytes()))
        except (OSError, ValueError):
            return {}

    def look(self) -> None:
        """Read every counter that the run shows; none may ever fall."""
        said = self.status()
        for name in COUNTERS:
            value = said.get(name)
            if value is None:
                continue
            if value < self._highest.get(name, value):
                self._fault(f"{name} fell from {self._highest[name]} to {value}")
            self._highest[name] = max(value, self._highest.get(name, value))
        self._report.last = dict(self._highest)

    def check(self) -> None:
        """Look at what the kill left: everything is whole, and little is half done."""
        self.look()
        self._report.redone = max(self._report.redone, int(self.status().get("updates_redone", 0)))
        unfinished = list(self.folder.rglob("*.tmp"))
        if len(unfinished) > MOST_UNFINISHED:
            self._fault(f"{len(unfinished)} temporary files: {unfinished[:20]}")
        parts = [path.relative_to(self.folder).parts[0] for path in unfinished]
        for what in parts or ["nothing"]:
            self._report.hit[what] = self._report.hit.get(what, 0) + 1
        for name in ("settings.json", "status.json", "checkpoints/best.json"):
            self._whole(self.folder / name)
        try:
            if (self.folder / "store" / "ledger.sqlite").exists():
                damaged = verify_store(self.folder / "store").damaged
                if damaged:
                    self._fault(f"damaged chunks: {damaged[:5]}")
            if checkpoint.listed(self.folder):
                checkpoint.newest(self.folder)
            best = checkpoint.folder_of(self.folder) / "best.pt"
            if best.exists():
                checkpoint.load(best)
            home = self.folder / "policies" / "main"
            for version in versions_in(home):
                folder = PolicyFolder(version_folder(home, version))
                manifest = folder.read_manifest()
                for blob in (manifest.policy, manifest.golden):
                    folder.read(blob, MAX_POLICY_BYTES)
        except (WmError, OSError) as error:
            self._fault(f"{type(error).__name__}: {error}")

    def _whole(self, path: Path) -> None:
        try:
            json.loads(path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError as error:
            self._fault(f"{path}: {error}")

    def _fault(self, text: str) -> None:
        if len(self._report.faults) < 50:
            self._report.faults.append(f"kill {self._report.kills}: {text}")


#: what appears while something is written
FILES = {
    "checkpoint": ("checkpoints/*.tmp",),
    "best": ("checkpoints/best*",),
    "publishing": ("policies/*/*.tmp",),
    "chunk": ("store/*/*/*.mcap",),
}
#: moments that are waited for, in turn, with the longest random delay after them in seconds
MOMENTS = {
    "importing": 3.0,
    "starting": 1.0,
    "training": 2.0,
    "evaluating": 0.5,
    "checkpoint": 0.02,
    "best": 0.02,
    "publishing": 0.02,
    "chunk": 0.02,
}


def run(settings: RunKills) -> KillsReport:
    """Kill the run as often as asked; what is found stands in the report."""
    settings.root.mkdir(parents=True)
    rng, report, began_s = random.Random(settings.seed), KillsReport(), time.monotonic()
    training, aimed = Run(settings, report), Counter[str]()
    moments = [m for m in MOMENTS if settings.publish or m != "publishing"]
    try:
        for number in range(settings.kills):
            moment = moments[number % len(moments)]
            training.start()
            training.wait(moment)
            time.sleep(rng.uniform(0.0, MOMENTS[moment]))
            training.kill()
            report.kills += 1
            aimed[moment] += 1
            training.check()
            if number % 10 == 9:
                print(f"{number + 1} kills, {len(report.faults)} faults", flush=True)
    except Exception as error:
        report.faults.append(f"{type(error).__name__}: {error}")
        report.faults.append((settings.root / "log").read_text()[-1000:])
    finally:
        training.close()
    report.aimed, report.took_s = dict(aimed), round(time.monotonic() - began_s, 1)
    return report


if __name__ == "__main__":
    chosen = tyro.cli(RunKills, prog="python -m benchmarks.run_kills")
    os.nice(10)
    found = run(chosen)
    (chosen.root / "report.json").write_text(found.model_dump_json(indent=1))
    print(found.model_dump_json(indent=1))
    sys.exit(not found.passed)
