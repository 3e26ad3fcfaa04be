"""Run verbs of ``wm`` one after another, each in a process of its own."""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_core.demo.processes import ProcessGroup

ROOT = Path(__file__).resolve().parents[2]
EVALUATION_SEED = (
    90_000  #: seed of the evaluation episodes, the same for all presets and of no training
)

Row = dict[str, Any]


class VerbFailed(Exception):
    """Raised when a verb of ``wm`` failed; its text stands in the row instead of figures."""

    def __init__(self, verb: str, status: int, said: str) -> None:
        why = " ".join(said.strip().splitlines()[-2:])[-400:]
        super().__init__(f"wm {verb} ended with {status}: {why}")


class Cut(Exception):
    """Raised when the work was interrupted; there is no row yet."""


@dataclass
class Verbs:
    """Runs verbs of ``wm`` one after another, each a process with one thread.

    Args:
        logs: folder for their output.
        stop: ends the verb that runs; ``Cut`` is raised then.
    """

    logs: Path
    stop: threading.Event
    group: ProcessGroup = field(init=False)

    def __post_init__(self) -> None:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        env = {"MUJOCO_GL": "egl"} | os.environ | {
            "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0",
        }  # fmt: skip
        self.group = ProcessGroup(self.logs, env)

    def __call__(self, verb: str, *options: str, name: str = "") -> str:
        """Run ``wm verb options`` and return what it printed."""
        argv = [sys.executable, "-m", "wm_core.cli", verb, *options]
        child = self.group.start(name or verb, argv)
        while child.process.poll() is None:
            if self.stop.wait(0.2):
                self.group.stop(child.name, timeout_s=60.0)
                raise Cut
        self.group.children.remove(child)
        child.stream.close()
        said, status = child.log.read_text(errors="replace"), child.process.returncode
        if self.stop.is_set() or status < 0:  # by a signal: not the verb's own doing
            raise Cut(f"wm {verb} ended with {status}")
        if status:
            raise VerbFailed(verb, status, said)
        return said

    def json(self, verb: str, *options: str, name: str = "") -> list[Row]:
        """Run a verb with --json and return the objects that it printed."""
        said = self(verb, *options, "--json", name=name).splitlines()
        return [json.loads(line) for line in said if line.startswith("{")]

    def returns(self, *who: str, episodes: int, name: str) -> Row:
        """Evaluate the actor that the options ``who`` name: mean, bounds and returns."""
        options = ("--episodes", str(episodes), "--seed", str(EVALUATION_SEED))
        got = self.json("evaluate", *who, *options, name=name)[-1]
        keys = ("mean", "sd", "low", "high", "episodes")
        return {k: rounded(got[k]) for k in keys} | {"returns": rounded(got["returns"])}


def rounded(value: Any) -> Any:
    """Round ``value``, a number, None or a list of them, to five digits."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
