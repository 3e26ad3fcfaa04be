"""Writes which policy took over when, one JSON line a swap; a disk that refuses delays no tick."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

from wm_core.contract.card import PolicyCard
from wm_core.contract.files import json_text

_KEPT = 1000  #: lines that wait for the disk


class SwapLog:
    """Keeps lines until the disk takes them.

    Args:
        path: of the file; None for none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def add(self, card: PolicyCard, **about: Any) -> None:
        """Note that the policy of ``card`` has taken over (the control thread)."""
        line = {
            "time_s": round(time.time(), 3),
            "version": card.version,
            "weights_sha256": card.weights_sha256,
            "learner_updates": card.learner_updates,
            "agent_steps": card.agent_steps,
            **about,
        }
        self._lines.append(json_text(line))

    def write(self) -> None:
        """Append waiting lines; where the disk refuses they wait for the next time."""
        path = self._path
        if path is None or not self._lines:
            return
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)
        except OSError:
            self._lines.extendleft(reversed(lines))
