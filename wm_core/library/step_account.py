"""Whether anything is lost: what became of every step that a robot recorded."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_core.contract.errors import StoreError, WmError
from wm_core.contract.files import read_json
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.format.front import read_front
from wm_core.library.episode_book import EpisodeBook
from wm_core.library.live_folder import LEARNER, live_of
from wm_core.training.status import NAME as STATUS_NAME

FRONTS = 20  #: chunks whose meta is read by one look


class StepAccount:
    """Follows the steps of a run from its robots to its learner.

    Args:
        run: the run folder.
        book: of the store that the run learns from; whoever owns it refreshes it.
    """

    def __init__(self, run: Path, book: EpisodeBook) -> None:
        self._run, self._book = Path(run), book
        self._dropped: dict[tuple[str, str], tuple[int, dict[str, int]]] = {}
        self._version = -1
        self._counts: dict[str, int] = {}

    def now(self, live: Mapping[str, Mapping[str, Any]] = {}) -> dict[str, Any]:
        """Give the figures of this moment as plain data; None stands for what is not known.

        Args:
            live: what robots say of themselves, by name: their ``counters`` are looked at.

        Returns:
            Of steps: ``recorded`` (numbered by their robots, the newest that are still on a robot
            only where it says so), ``acknowledged``, ``missing`` (numbered before an acknowledged
            one and not there), ``known`` to the learner and ``trained_on`` at least once, with
            ``trained_share``; ``dropped`` by reason, as the robots wrote it into their chunks;
            ``quarantined``, ``damaged`` and ``pruned`` chunks; ``disk_free_bytes`` and
            ``store_bytes``; ``oldest_unacknowledged_s`` of all robots; ``robots``, by name.
        """
        self._refresh()
        learner, status = (
            read_json(live_of(self._run) / LEARNER),
            read_json(self._run / STATUS_NAME),
        )
        numbered, robots = self._book.numbered(), dict[str, dict[str, Any]]()
        for name in sorted({*numbered, *live}):
            told = live.get(name, {}).get("counters", {})
            robots[name] = {
                "numbered": numbered.get(name, 0),
                "recorded": _number(told.get("steps_recorded")),
                "oldest_unacknowledged_s": _number(told.get("oldest_unacked_s")),
            }
        waits = [r["oldest_unacknowledged_s"] for r in robots.values()]
        trained = (
            learner.get("steps_trained_on") if learner.get("pid") == status.get("pid") else None
        )
        recorded, known = sum(numbered.values()), status.get("agent_steps")
        return {
            "recorded": recorded,
            "acknowledged": self._book.steps,
            "missing": max(0, recorded - self._book.steps),
            "known": known,
            "trained_on": trained,
            "trained_share": trained / known if trained is not None and known else None,
            "dropped": dict(sum((Counter(d) for _, d in self._dropped.values()), Counter())),
            "left_out": status.get("left_out", {}),
            "invalid": status.get("invalid_steps", {}),
            **self._counts,
            "store_bytes": self._book.nbytes,
            "disk_free_bytes": _free_bytes(self._book.root, self._run),
            "oldest_unacknowledged_s": max((w for w in waits if w is not None), default=None),
            "robots": robots,
            "is_behind": self._book.is_behind,
            "problem": self._book.problem,
        }

    def _refresh(self) -> None:
        """Look again at what changes with the ledger, and at some of the newest chunks."""
        if self._version != self._book.version:
            ledger = self._book.ledger()
            try:
                if ledger is not None:
                    self._counts = {
                        "quarantined": ledger.quarantined()[0],
                        "damaged": len(ledger.damaged()),
                        "pruned": self._book.unread["pruned"],
                    }
            except (StoreError, sqlite3.Error):
                return  # the book says what is wrong
        left = FRONTS
        for robot, session, seq in self._book.newest_chunks():
            before = self._dropped.get((robot, session))
            if before is not None and before[0] >= seq:
                continue
            if not left:
                return
            left -= 1
            counts = {} if before is None else before[1]
            try:
                path = chunk_path(self._book.root, ChunkKey(robot, session, seq))
                counts = dict(read_front(path).meta.dropped)
            except (OSError, WmError):
                pass  # the chunk before it said so much
            self._dropped[robot, session] = seq, counts
        self._version = self._book.version


def _number(value: object) -> float | None:
    """``value`` where it is a number."""
    return float(value) if isinstance(value, int | float) else None


def _free_bytes(*folders: Path) -> int | None:
    """Bytes that are left on the disk of the first of ``folders`` that is there."""
    for folder in folders:
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None
