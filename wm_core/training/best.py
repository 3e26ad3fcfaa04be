"""Evaluates the policy during training, and keeps the checkpoint whose evaluation was best.

Every evaluation plays the same episodes.  A new best one is first written down in the run's own
checkpoint; only then is that checkpoint linked as ``best.pt``, and ``best.json`` says what it
reached.  So a kill at any moment leaves a whole ``best.pt``, and a resumed run does again what is
missing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from wm_core.config import Config
from wm_core.contract.errors import WmError
from wm_core.contract.files import TMP_SUFFIX, json_text, read_json, sync_folder, write_durably
from wm_core.training.checkpoint import BEST, folder_of
from wm_core.training.returns import Evaluation
from wm_core.training.schedule import Every

log = logging.getLogger(__name__)

#: asks before every step whether to stop, and reports the number of episodes so far
Evaluate = Callable[[Callable[[], bool], Callable[[int, float], None]], Evaluation]


def updates_of_world_alone(config: Config) -> int:
    """Count the updates with which a run begins that train the world model and no behaviour."""
    return sum(config.optim.stages or ())


class Evaluations:
    """Evaluates the policy of a run now and then, and remembers the best.

    Args:
        run: the run folder.
        evaluate: runs whole episodes; None: this run is never evaluated.
        every: agent steps between two; 0: never.
        episodes: of a whole evaluation; one that was stopped earlier does not count.
        untrained: updates after which the behaviour has learnt nothing yet.
    """

    def __init__(
        self,
        run: Path,
        evaluate: Evaluate | None,
        *,
        every: int,
        episodes: int,
        untrained: int = 0,
    ) -> None:
        self._run, self._evaluate, self._episodes = run, evaluate, episodes
        self._every, self._updates, self._untrained = Every(every), 0, untrained
        self._last: dict[str, Any] = {}
        self.best: dict[str, Any] | None = None  #: what ``best.json`` says

    @property
    def status(self) -> dict[str, Any]:
        """What a run's status says of its evaluations; empty before the first."""
        best = {} if self.best is None else {"best": self.best}
        return self._last | best

    def due(self, steps: int, updates: int, *, at_end: bool = False) -> bool:
        """Whether an evaluation is due after ``steps`` agent steps.

        Args:
            steps: agent steps, on the clock of ``every``.
            updates: of the agent; one whose behaviour has learnt nothing is not evaluated.
            at_end: the run has reached its goal: what was learnt since is evaluated too.
        """
        if self._evaluate is None or updates <= self._untrained or not self._every.interval:
            return False
        if steps < self._every.last:  # another source of experience, another clock
            self._every.done(steps)
        return self._every.due(steps) or (at_end and updates > self._updates)

    def take(
        self, steps: int, updates: int, agent_steps: int, stop: Callable[[], bool]
    ) -> dict[str, float]:
        """Evaluate; returns numbers for the log, none where it was stopped or failed.

        Args:
            steps: agent steps, on the clock of ``every``.
            updates: of the policy.
            agent_steps: in the store.
            stop: asked before every step of the environment.
        """
        assert self._evaluate is not None
        try:
            found = self._evaluate(stop, self._tell)
        except WmError as error:  # the environment's fault costs the evaluation, not the run
            log.warning("an evaluation failed: %s", error)
            self._done(steps, updates, {"error": str(error)})
            return {}
        if len(found.returns) < self._episodes:
            self._last = {k: v for k, v in self._last.items() if k != "running"}
            return {}
        told = record(found) | {"updates": updates, "agent_steps": agent_steps}
        self._done(steps, updates, told)
        if math.isfinite(found.mean) and (self.best is None or found.mean > self.best["mean"]):
            self.best = told
        best = float("nan") if self.best is None else self.best["mean"]
        return _numbers(found) | {"eval/best": best}

    def is_best(self, updates: int) -> bool:
        """Whether the policy after ``updates`` is the best."""
        return self.best is not None and self.best["updates"] == updates

    def keep(self, checkpoint: Path) -> None:
        """Keep ``checkpoint``, which was evaluated as the best, as ``best.pt``.

        Doing it again changes nothing; where it could not be written, the best before stays, and
        is what later evaluations have to exceed.

        Raises:
            OSError: where the disk is full or refuses.
        """
        folder = folder_of(self._run)
        if not checkpoint.exists():
            return
        try:
            _link(checkpoint, folder / f"{BEST}.pt")
        except OSError:
            self.best = read_best(self._run)
            raise
        write_durably(folder / f"{BEST}.json", json_text(self.best, indent=2).encode())

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {
            "evaluated_steps": int(self._every.last),
            "evaluated_updates": self._updates,
            "best": self.best,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, with the best that is known from there or from the disk."""
        self._every.done(int(state["evaluated_steps"]))
        self._updates = int(state.get("evaluated_updates", 0))
        self.best = state.get("best")
        kept = read_best(self._run)
        if kept is not None and (self.best is None or kept["mean"] > self.best["mean"]):
            self.best = kept

    def _tell(self, episodes: int, last_return: float) -> None:
        self._last = self._last | {"running": f"{episodes} of {self._episodes} episodes"}

    def _done(self, steps: int, updates: int, told: dict[str, Any]) -> None:
        self._every.done(steps)
        self._updates, self._last = updates, told


def record(found: Evaluation) -> dict[str, Any]:
    """Say what an evaluation found, in short, for a status and ``best.json``."""
    summary = found.summary()
    names = ("mean", "sd", "low", "high", "episodes", "mean_length", "success", "unusable_steps")
    return {"task": found.task} | {name: summary[name] for name in names} | {"cut": found.cut}


def read_best(run: Path) -> dict[str, Any] | None:
    """Read what the best checkpoint of ``run`` reached; None where it keeps none."""
    told = read_json(folder_of(run) / f"{BEST}.json")
    if not (folder_of(run) / f"{BEST}.pt").exists():
        return None
    known = all(isinstance(told.get(key), int | float) for key in ("mean", "updates"))
    return told if known else None


def _numbers(found: Evaluation) -> dict[str, float]:
    low, high = found.bounds
    numbers = {
        "eval/return": found.mean,
        "eval/sd": found.sd,
        "eval/low": low,
        "eval/high": high,
        "eval/length": found.mean_length,
        "eval/unusable_steps": float(found.unusable),
        "eval/cut_episodes": float(found.cut),
    }
    if found.success is not None:
        numbers["eval/success"] = found.success
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _link(source: Path, target: Path) -> None:
    """Make ``target`` another name of ``source`` in one piece; a copy where links do not exist."""
    unfinished = target.with_name(f"{target.name}.{uuid4().hex[:8]}{TMP_SUFFIX}")
    try:
        try:
            os.link(source, unfinished)
        except OSError:
            shutil.copyfile(source, unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(unfinished, target)  # where both are one file already, this leaves the name
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    sync_folder(target.parent)
