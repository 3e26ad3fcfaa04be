"""Reports figures of benchmarks, each a name, a value and a unit, as JSON lines or as a table.

The first line says on which machine and code they were measured. Results go to standard output,
progress to standard error.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table

from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen
from wm_core.training.provenance import commit

#: packages whose version changes what is measured
PACKAGES = ("numpy", "torch", "onnxruntime", "mujoco", "dm_control", "gymnasium")
#: environment variables that decide how many threads compute and render
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
BUSY_SHARE = 0.1  #: of a core; another process above it makes the machine not quiet


class BenchSettings(Frozen):
    """Says how a benchmark reports."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )


class Report:
    """Prints figures: as JSON lines at once, or as one table on leaving the context manager.

    The table is printed after an interrupt too.

    Args:
        title: what is measured, above the table and before each line of progress.
        as_json: print JSON lines instead of the table.
    """

    def __init__(self, title: str, *, as_json: bool) -> None:
        self._title, self._as_json = title, as_json
        self._figures: list[tuple[str, float, str]] = []

    def __enter__(self) -> Report:
        self._run = run_line()
        if self._as_json:
            _print_json(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._as_json and self._figures:
            Console().print(self._table())

    def add(self, name: str, value: float, unit: str) -> None:
        """Add one figure, such as ``("sim/walker_walk/speedup", 43.0, "x")``."""
        self._figures.append((name, float(value), unit))
        if self._as_json:
            _print_json({"name": name, "value": float(value), "unit": unit})

    def progress(self, text: str) -> None:
        """Write to standard error what is being done."""
        sys.stderr.write(f"{self._title}: {text}\n")
        sys.stderr.flush()

    def _table(self) -> Table:
        run = self._run
        quiet = "quiet machine" if run["quiet"] else "BUSY machine: these figures are unreliable"
        versions = " ".join(f"{k} {v}" for k, v in run["versions"].items())
        caption = f"commit {run['commit']} · {quiet} · load {run['load_average']}\n{versions}"
        table = Table("name", "value", "unit", title=self._title, caption=caption)
        table.columns[1].justify = "right"
        for name, value, unit in self._figures:
            table.add_row(name, f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}", unit)
        return table


def run_line() -> dict[str, Any]:
    """Describe the machine and code: commit, versions, threads, load, other busy processes."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    set_threads = {k: os.environ[k] for k in THREAD_VARIABLES if k in os.environ}
    return {
        "name": "run",
        "commit": commit() or "unknown",
        "versions": versions,
        "threads": {"cores": len(os.sched_getaffinity(0)), **set_threads},
        "cpu": _cpu(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "quiet": is_quiet(),
    }


def is_quiet(watch_s: float = 0.5) -> bool:
    """Watch whether every other process uses less than ``BUSY_SHARE`` of a core."""
    before, start = _cpu_seconds(), time.monotonic()
    time.sleep(watch_s)
    after, elapsed = _cpu_seconds(), time.monotonic() - start
    used = (after[pid] - seconds for pid, seconds in before.items() if pid in after)
    return all(seconds <= BUSY_SHARE * elapsed for seconds in used)


def _cpu_seconds() -> dict[int, float]:
    """Read the CPU seconds that each other process has used so far, by its id."""
    ticks_hz = os.sysconf("SC_CLK_TCK")
    seconds: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid = int(stat.parent.name)
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if pid != os.getpid():
            seconds[pid] = (int(fields[11]) + int(fields[12])) / ticks_hz  # user and system time
    return seconds


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "")


def _print_json(line: dict[str, Any]) -> None:
    sys.stdout.write(json_text(line) + "\n")
    sys.stdout.flush()
