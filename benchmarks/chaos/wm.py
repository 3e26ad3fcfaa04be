"""The command ``wm`` with a wall clock that the campaign moves: ``CLOCK_FILE VERB OPTIONS``."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.chaos.clock import WallClock
from wm_core.cli.main import main

if __name__ == "__main__":
    WallClock(Path(sys.argv[1])).install()
    sys.exit(main(sys.argv[2:]))
