"""The learner's reader of the campaign: follows the store and looks at random steps.

It says in a shared file how many steps it has seen; a step whose pixels do not carry its own
number is written to a list.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

from benchmarks.chaos.clock import WallClock
from benchmarks.chaos.steps import Progress, ProgressFile
from wm_core.store.frames import BlockLost
from wm_core.store.ledger import LEDGER_NAME
from wm_core.store.reader import Store
from wm_core.store.segments import Segment


def run(store_folder: Path, state: Path) -> None:
    """Follow the store until killed."""
    WallClock(state / "clock").install()
    progress = ProgressFile(state / "reader.progress")
    rng = random.Random(0)
    while not (store_folder / LEDGER_NAME).exists():
        time.sleep(0.1)
    store = Store(store_folder, cache_bytes=10**6)
    while True:
        store.refresh()
        progress.write(Progress(store.steps, store.arrival, store.skipped))
        segments = store.segments
        for segment in rng.sample(segments, min(4, len(segments))):
            for fault in _look(store, segment):
                with (state / "reader.faults").open("a") as file:
                    file.write(fault + "\n")
        time.sleep(0.1)


def _look(store: Store, segment: Segment) -> list[str]:
    """Compare the numbers in the pixels of one segment's first steps with their keys."""
    steps = store.read(segment.rows(0, min(8, segment.length)))
    try:
        pixels = store.observe(steps)["image"]
    except BlockLost:  # a file that a fault of the campaign took away; it is left out from now on
        return []
    got = pixels.reshape(len(steps), -1)[:, 16:20].copy().view("<u4")[:, 0].tolist()
    expected = (steps["key"] & 0xFFFFFFFF).tolist()
    return [] if got == expected else [f"steps {expected} show the numbers {got}"]


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
