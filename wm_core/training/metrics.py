"""Writes the numbers of a run: JSON lines for programs, loggers such as TensorBoard for people.

The learner gives 0-dim tensors; they are averaged between two lines without leaving the device,
so that logging does not stall it.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_core.contract.files import json_text, write_durably
from wm_core.training.loggers.base import Loggers, RunAbout


class MetricLog:
    """Writes ``metrics.jsonl`` of a run folder, and gives the same numbers to loggers.

    Args:
        run: the run folder; lines are appended to what is there.
        loggers: what else gets the numbers, and the videos; closed with this.
        resume_at: drop lines beyond this number of updates, which will be written again.
    """

    def __init__(
        self, run: Path, loggers: Loggers | None = None, *, resume_at: int | None = None
    ) -> None:
        run.mkdir(parents=True, exist_ok=True)
        path = run / "metrics.jsonl"
        if resume_at is not None and path.exists():
            _drop_after(path, resume_at)
        self._file = path.open("a", buffering=1)
        self._loggers = loggers or Loggers({}, RunAbout(run))
        self._sums: dict[str, torch.Tensor | float] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, metrics: Mapping[str, torch.Tensor | float]) -> None:
        """Take in the numbers () of one update, to be averaged in the next line."""
        for key, value in metrics.items():
            number = value.detach() if isinstance(value, torch.Tensor) else value
            self._sums[key] = self._sums[key] + number if self._counts[key] else number
            self._counts[key] += 1

    def means(self) -> dict[str, float]:
        """Average since the last ``write``; an update that was not finite shows here."""
        return {k: float(v) / self._counts[k] for k, v in self._sums.items()}

    def write(self, counters: Mapping[str, float], extra: Mapping[str, float] = {}) -> None:
        """Append one line: ``counters``, the averages so far and ``extra``; forget the averages.

        Args:
            counters: must hold ``updates`` and ``agent_steps``.
            extra: further numbers of this moment, such as returns.
        """
        numbers = self.means() | dict(extra)
        self._sums.clear()
        self._counts.clear()
        line = {**counters, "time": round(time.time(), 3)} | numbers
        self._file.write(json_text(line) + "\n")
        kinds: dict[str, dict[str, float]] = {"progress": dict(counters)}
        for key, value in numbers.items():
            kind, _, name = key.rpartition("/")
            kinds.setdefault(kind or "train", {})[name] = value
        places = {name: int(counters[name]) for name in ("updates", "agent_steps")}
        for kind, named in kinds.items():
            self._loggers.write(kind, named, **places)

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        """Give a video to the loggers.

        Args:
            name: its tag.
            frames: (N, H, W, 3) uint8.
            updates: gradient updates so far.
            agent_steps: collected so far.
            fps: frames per second.
        """
        self._loggers.video(name, frames, updates=updates, agent_steps=agent_steps, fps=fps)

    def close(self) -> None:
        """Flush and close the files; a second call does nothing."""
        try:
            self._file.close()
        finally:
            self._loggers.close()


def _drop_after(path: Path, updates: int) -> None:
    kept = []
    for text in path.read_text().splitlines():
        try:
            line: dict[str, Any] = json.loads(text)
        except json.JSONDecodeError:  # a line cut short by a kill
            continue
        if line.get("updates", 0) <= updates:
            kept.append(text)
    write_durably(path, "".join(f"{line}\n" for line in kept).encode())
