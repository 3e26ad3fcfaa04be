"""Chooses replayed windows: all alike, badly predicted ones more often, or rarely drawn ones.

A window is named by the key of its first step.  Windows lie in runs of consecutive keys.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from wm_core.replay.settings import BalancedConfig, PrioritizedConfig, UniformConfig
from wm_core.replay.slots import INDEX, grown


class Selector(Protocol):
    """Chooses among the windows of a store that may grow and lose old steps meanwhile."""

    wants_losses: bool  #: whether ``update`` is to be called with the losses of trained windows

    def refresh(self, first: np.ndarray, count: np.ndarray) -> None:
        """Take notice of the windows that there are now.

        Args:
            first: (S,) int64 key of the first window of each run.
            count: (S,) int64 windows of each run.
        """
        ...

    def choose(self, n: int) -> np.ndarray:
        """Draw (n,) int64 positions among all windows, counted run after run."""
        ...

    def update(self, keys: np.ndarray, losses: np.ndarray) -> None:
        """Learn the ``losses`` (B,) of windows ``keys`` (B,) int64 that were trained on."""
        ...

    def state(self) -> Any:
        """Give what it needs to go on exactly, besides the generator: containers and arrays."""
        ...

    def load_state(self, state: Any) -> None:
        """Go on where ``state`` was taken."""
        ...


class Uniform:
    """Chooses every window with equal chance."""

    wants_losses = False

    def __init__(self, settings: UniformConfig, rng: np.random.Generator) -> None:
        self.rng, self._total = rng, 0

    def refresh(self, first: np.ndarray, count: np.ndarray) -> None:
        self._total = int(count.sum())

    def choose(self, n: int) -> np.ndarray:
        return np.array([self.rng.integers(self._total) for _ in range(n)], np.int64)

    def update(self, keys: np.ndarray, losses: np.ndarray) -> None:
        pass

    def state(self) -> None:
        return None

    def load_state(self, state: Any) -> None:
        pass


class Prioritized:
    """Chooses windows the more often, the worse they were predicted when last trained on.

    A window that was never trained on counts as the worst one known.

    Args:
        settings: exponent, and the share of draws that are uniform.
        rng: of the draws.

    Source: Schaul et al. 2016, arXiv:1511.05952, section 3.3, proportional variant.
    Deviates: no importance weights; a share of uniform draws keeps every window in reach.
    """

    wants_losses = True

    def __init__(self, settings: PrioritizedConfig, rng: np.random.Generator) -> None:
        self._settings, self._rng = settings, rng
        self._runs: list[tuple[int, int, int]] = []  # session, first index, windows
        self._tables: dict[int, np.ndarray] = {}  # session -> (index,) weight; below 0: unknown
        self._largest = 1.0

    def refresh(self, first: np.ndarray, count: np.ndarray) -> None:
        runs = zip((first >> 32).tolist(), (first & INDEX).tolist(), count.tolist(), strict=True)
        self._runs = list(runs)
        for session, index, windows in self._runs:
            self._table(session, index + windows)
        self._tables = {session: self._tables[session] for session, _, _ in self._runs}

    def _table(self, session: int, size: int) -> np.ndarray:
        """Give (at least size,) weights of a session's windows by index."""
        table = grown(self._tables.get(session, np.zeros(0, np.float32)), size)
        self._tables[session] = table
        return table

    def choose(self, n: int) -> np.ndarray:
        if not n:
            return np.empty(0, np.int64)
        weights = np.concatenate([self._tables[s][i : i + c] for s, i, c in self._runs])
        weights = np.where(weights < 0, self._largest, weights).astype(np.float64)
        share = self._settings.uniform
        ends = np.cumsum((1.0 - share) * weights / weights.sum() + share / len(weights))
        chosen = np.searchsorted(ends, self._rng.random(n) * ends[-1], side="right")
        return np.minimum(chosen, len(weights) - 1)

    def update(self, keys: np.ndarray, losses: np.ndarray) -> None:
        sound = np.isfinite(losses)
        weights = (np.maximum(losses[sound], 0.0) + 1e-6) ** self._settings.exponent
        weights = np.minimum(weights, 1e30)  # the table holds float32
        for key, weight in zip(keys[sound].tolist(), weights.tolist(), strict=True):
            self._table(key >> 32, (key & INDEX) + 1)[key & INDEX] = weight
            self._largest = max(self._largest, weight)

    def state(self) -> dict[str, Any]:
        tables = {session: table.copy() for session, table in self._tables.items()}
        return {"tables": tables, "largest": self._largest}

    def load_state(self, state: Any) -> None:
        self._tables = {int(s): np.array(t, np.float32) for s, t in state["tables"].items()}
        self._largest = float(state["largest"])


class Balanced:
    """Chooses windows the less often, the more often they were chosen: new ones catch up.

    The chance is in proportion to exp(-draws / temperature).  A batch has no window twice, while
    there are as many as it wants.

    Args:
        settings: the temperature.
        rng: of the draws.

    Source: TWM, arXiv:2303.07109, balanced dataset sampling.
    """

    wants_losses = False

    def __init__(self, settings: BalancedConfig, rng: np.random.Generator) -> None:
        self._settings, self._rng = settings, rng
        self._runs: list[tuple[int, int, int]] = []  # session, first index, windows
        self._ends = np.zeros(0, np.int64)  # windows up to and including each run
        self._draws: dict[int, np.ndarray] = {}  # session -> (index,) int32 draws, -1 before any

    def refresh(self, first: np.ndarray, count: np.ndarray) -> None:
        runs = zip((first >> 32).tolist(), (first & INDEX).tolist(), count.tolist(), strict=True)
        self._runs, self._ends = list(runs), np.cumsum(count, dtype=np.int64)
        tables: dict[int, np.ndarray] = {}
        for session, index, windows in self._runs:
            held = tables.get(session, self._draws.get(session, np.zeros(0, np.int32)))
            tables[session] = grown(held, index + windows)
        self._draws = tables

    def choose(self, n: int) -> np.ndarray:
        if not n:
            return np.empty(0, np.int64)
        draws = np.concatenate([self._draws[s][i : i + c] for s, i, c in self._runs])
        likelihood = -np.maximum(draws, 0) / self._settings.temperature
        chosen: list[np.ndarray] = []
        while n > 0:  # more than once where there are fewer windows than wanted
            raced = likelihood + self._rng.gumbel(size=len(likelihood))
            most = min(n, len(raced))
            chosen.append(np.argpartition(raced, len(raced) - most)[len(raced) - most :])
            n -= most
        positions = np.concatenate(chosen).astype(np.int64)
        self._count(positions)
        return positions

    def _count(self, positions: np.ndarray) -> None:
        """Count one more draw of the windows at ``positions`` (n,) int64."""
        rows = np.searchsorted(self._ends, positions, side="right")
        for row, position in zip(rows.tolist(), positions.tolist(), strict=True):
            session, index, windows = self._runs[row]
            table, at = self._draws[session], index + position - (int(self._ends[row]) - windows)
            table[at] = max(0, int(table[at])) + 1

    def update(self, keys: np.ndarray, losses: np.ndarray) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {"draws": {session: table.copy() for session, table in self._draws.items()}}

    def load_state(self, state: Any) -> None:
        self._draws = {int(s): np.array(t, np.int32) for s, t in state["draws"].items()}
