"""``python -m benchmarks.chaos``."""

import sys
from pathlib import Path

import tyro

from benchmarks.chaos.campaign import Chaos, run, write

if __name__ == "__main__":
    settings = tyro.cli(Chaos, prog="python -m benchmarks.chaos")
    report = run(settings)
    write(report, Path(settings.root) / "report.json")
    print(report.model_dump_json(indent=1, exclude={"settings"}))
    sys.exit(not report.passed)
