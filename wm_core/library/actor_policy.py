"""Acts in simulation with the policies that a trainer publishes, exchanged between two steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wm_core.contract.errors import PolicyFailed, SpecMismatch, WmError
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import Obs
from wm_core.link.robot.policy_client import Running

log = logging.getLogger(__name__)


class PublishedPolicy:
    """Plays N environments with the newest policy of a folder that another thread fills.

    A policy that cannot be used is told once, and the one before goes on.  Its memory of an
    episode passes to the one that follows, where that has the same kind.

    Args:
        latest: gives the folder of the newest policy; None while there is none.
        rows: N, environments.
        seed: of every draw.
        mean: take the likeliest action instead of drawing one.
    """

    def __init__(
        self, latest: Callable[[], Path | None], *, rows: int, seed: int, mean: bool = False
    ) -> None:
        self._latest, self._rows, self._mean = latest, rows, mean
        self._seeds = np.random.SeedSequence(seed)
        self._folder: Path | None = None  # that was looked at last
        self._engines: list[PolicyEngine] = []
        self._sha256 = ""
        self.runner: PolicyRunner | None = None
        self.version = -1  #: that acts; -1 before the first
        self.swaps = self.failures = 0
        self.problem = ""  #: why the newest policy does not act; empty where it does

    def running(self) -> Running | None:
        """Name the policy that acts, for the trainer to know."""
        return None if self.runner is None else Running(self.version, self._sha256)

    def refresh(self) -> bool:
        """Take over the newest policy where it is another; whether there is any."""
        folder = self._latest()
        if folder is not None and folder != self._folder:
            self._folder = folder
            try:
                self._take(PolicyRunner.load(folder))
            except WmError as error:
                self.problem = f"policy {folder.name} is passed over: {error}"
                log.warning(self.problem)
        return self.runner is not None

    def _take(self, runner: PolicyRunner) -> None:
        before, spec = self._engines, None if self.runner is None else self.runner.spec
        if spec is not None and runner.spec != spec:
            raise SpecMismatch("it is of another spec than the environments were opened for")
        self._engines = [
            PolicyEngine(runner, seed=int(s.generate_state(1)[0]), mean=self._mean, estimates=())
            for s in self._seeds.spawn(self._rows)
        ]
        for old, new in zip(before, self._engines, strict=False):
            try:
                new.carry = old.carry
            except SpecMismatch:  # of another architecture: it begins anew
                break
        if self.runner is not None:
            self.swaps += 1
            self.runner.close()
        self.runner, self.version = runner, runner.card.version
        self.problem = ""
        self._sha256 = runner.manifest.policy.sha256 if runner.manifest else ""

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        """Choose actions (N, A) float32, NaN in the row of a policy that gave no answer.

        Args:
            obs: images (N, H, W, C), vectors (N, n).
            prev_action: (N, A) actions sent one step before.
            is_first: (N,) bool, True where an episode begins.
        """
        assert self.runner is not None
        actions = np.empty((self._rows, self.runner.spec.action.size), np.float32)
        for row, engine in enumerate(self._engines):
            one = {key: value[row] for key, value in obs.items()}
            try:
                actions[row] = engine.act(one, prev_action[row], bool(is_first[row])).action
            except PolicyFailed:
                self.failures += 1
                actions[row] = np.nan  # recorded as unusable; the environment stands still
        return actions
