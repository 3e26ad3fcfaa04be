"""Verbs of ``wm``, run one after another in processes of their own."""

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
JUDGED_SEED = 90_000  #: of the episodes that judge: the same for all, and none of a training

Row = dict[str, Any]


class VerbFailed(Exception):
    """A verb of ``wm`` that ended badly: what a row then says instead of figures."""

    def __init__(self, verb: str, status: int, said: str) -> None:
        why = " ".join(said.strip().splitlines()[-2:])[-400:]
        super().__init__(f"wm {verb} ended with {status}: {why}")


class Cut(Exception):
    """The work was stopped before its end; there is no row yet."""


@dataclass
class Verbs:
    """Runs verbs of ``wm`` one after another, each a process with one thread.

    Args:
        logs: folder of what they print.
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
        """What ``wm verb options`` printed."""
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
        """The JSON objects that it printed."""
        said = self(verb, *options, "--json", name=name).splitlines()
        return [json.loads(line) for line in said if line.startswith("{")]

    def returns(self, *who: str, episodes: int, name: str) -> Row:
        """Mean, bounds and returns of whoever ``who`` names to ``wm evaluate``."""
        judged = ("--episodes", str(episodes), "--seed", str(JUDGED_SEED))
        got = self.json("evaluate", *who, *judged, name=name)[-1]
        keys = ("mean", "sd", "low", "high", "episodes")
        return {k: rounded(got[k]) for k in keys} | {"returns": rounded(got["returns"])}


def rounded(value: Any) -> Any:
    """``value``, a number, None or a list of them, to five digits."""
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
