"""Measure what recording costs the control loop: how late it is with and without a spool.

The trainer is unreachable all the while, as in an outage.  The two variants take turns, so that
whatever else the machine does meets both alike.

    python benchmarks/tick_jitter.py --seconds 60 --json
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.conformance import random_obs
from wm_core.contract.spec import ActionSpec, Frozen, Spec
from wm_core.contract.step import Step
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.uploader import Uploader

TURN_S = 5.0
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}


class Settings(Frozen):
    """Measure how late the ticks of a paced loop are, with and without a spool."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    rate_hz: float = Field(50.0, gt=0, description="Rate of the paced loop in Hz")
    seconds: float = Field(60.0, gt=0, description="Seconds that each variant is measured")


def unreachable_url() -> str:
    """Return the address of a local port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def turn(spool: Spool | None, steps: list[Step], rate_hz: float) -> list[float]:
    """Lateness in seconds of every tick of one turn; with a spool each tick puts one step."""
    late, begin = [], time.perf_counter() + 0.05
    for tick in range(round(TURN_S * rate_hz)):
        due = begin + tick / rate_hz
        time.sleep(max(0.0, due - time.perf_counter()))
        late.append(time.perf_counter() - due)
        if spool is not None:
            spool.put(steps[tick % len(steps)])
    return late


def main(settings: Settings) -> None:
    """Measure and report."""
    spec = Spec(action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))
    rng = np.random.default_rng(0)
    blank = Step(spec.zeros(), np.zeros(2, np.float32), 0.0, False, False, False)
    steps = [replace(blank, obs=random_obs(spec, rng)) for _ in range(32)]
    late: dict[str, list[float]] = {"no_spool": [], "spool": []}
    folder = Path(tempfile.mkdtemp())
    spool = Spool(folder, robot="bench", task="", spec=spec, settings=SpoolSettings())
    uploader = Uploader(folder, url=unreachable_url(), token=None)
    try:
        with Report("tick jitter", as_json=settings.json_) as report:
            for number in range(max(1, round(settings.seconds / TURN_S))):
                report.progress(f"turn {number + 1}")
                for name, used in (("no_spool", None), ("spool", spool)):
                    late[name] += turn(used, steps, settings.rate_hz)
            for name, values in late.items():
                missed = sum(value * settings.rate_hz > 1 for value in values)
                report.add(f"tick/{name}/missed", 100 * missed / len(values), "%")
                for quantile, share in QUANTILES.items():
                    value = float(np.quantile(values, share)) * 1e3
                    report.add(f"tick/{name}/late_{quantile}", value, "ms")
    finally:
        spool.close()
        uploader.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(tyro.cli(Settings))
