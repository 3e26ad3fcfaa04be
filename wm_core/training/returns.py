"""What an evaluation found: returns, lengths and successes of episodes, with 95 % intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: 97.5 % points of Student's t for 1, 2, ... 30 degrees of freedom; beyond, see ``_t``
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_Z = 1.959964  #: 97.5 % point of the normal distribution


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Give the two-sided 95 % interval of the mean, by Student's t; infinite for one value."""
    n = len(values)
    if n < 2:
        return (-math.inf, math.inf)
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    half = _t(n - 1) * sd / math.sqrt(n)
    return (mean - half, mean + half)


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Give the two-sided 95 % interval of a share, ``hits`` of ``n``, within 0 .. 1.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    if n == 0:
        return (0.0, 1.0)
    share, z2 = hits / n, _Z * _Z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return (max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class PlayedEpisode:
    """One whole episode of an evaluation."""

    total: float  #: its return, undiscounted
    length: int  #: agent steps
    ending: str = ""  #: terminated, truncated, or cut by the bound on steps
    success: bool | None = None  #: as the environment said last; None where it said nothing
    success_once: bool | None = None  #: whether it ever said so
    seed: int | None = None  #: that the environment was reset with
    unusable: int = 0  #: steps with a number that is not finite


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of a number of episodes."""

    returns: tuple[float, ...]  #: undiscounted, one per episode
    lengths: tuple[int, ...]  #: agent steps, one per episode
    actor: str = ""  #: who acted, in words
    task: str = ""
    episodes: tuple[PlayedEpisode, ...] = ()  #: the same in full
    notes: tuple[str, ...] = ()  #: what one has to know before quoting the numbers

    @classmethod
    def of(cls, episodes: Sequence[PlayedEpisode]) -> Evaluation:
        """Sum up whole episodes, and note what is odd about them."""
        cut, unusable = _cut(episodes), sum(e.unusable for e in episodes)
        notes = []
        if cut:
            longest = max(e.length for e in episodes)
            notes.append(
                f"{cut} of {len(episodes)} episodes were cut after {longest} steps and count as "
                "truncated: give the task a time limit, or raise the bound"
            )
        if unusable:
            notes.append(
                f"{unusable} of {sum(e.length for e in episodes)} steps had an observation, "
                "reward or action that is not finite; such a reward counts as 0"
            )
        return cls(
            tuple(e.total for e in episodes),
            tuple(e.length for e in episodes),
            episodes=tuple(episodes),
            notes=tuple(notes),
        )

    @property
    def mean(self) -> float:
        return float(np.mean(self.returns))

    @property
    def sd(self) -> float:
        """Standard deviation between episodes; 0.0 for a single one."""
        return float(np.std(self.returns, ddof=1)) if len(self.returns) > 1 else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Two-sided 95 % interval of the mean, by Student's t; infinite for one episode."""
        return t_interval(self.returns)

    @property
    def mean_length(self) -> float:
        """Mean agent steps of an episode."""
        return float(np.mean(self.lengths))

    @property
    def cut(self) -> int:
        """Episodes that were ended by the bound on their steps."""
        return _cut(self.episodes)

    @property
    def unusable(self) -> int:
        """Steps whose observation, reward or action was not finite."""
        return sum(e.unusable for e in self.episodes)

    @property
    def success(self) -> float | None:
        """Share of the episodes that ended in success; None where the task does not say."""
        told = self._told()
        return sum(told) / len(told) if told else None

    @property
    def success_bounds(self) -> tuple[float, float]:
        """Two-sided 95 % interval of ``success``, by Wilson."""
        told = self._told()
        return wilson_interval(sum(told), len(told))

    def summary(self) -> dict[str, object]:
        """Summarise in a dictionary for JSON; bounds are null where infinite."""
        low, high = (b if math.isfinite(b) else None for b in self.bounds)
        return {
            "task": self.task,
            "policy": self.actor,
            "mean": self.mean,
            "sd": self.sd,
            "low": low,
            "high": high,
            "episodes": len(self.returns),
            "mean_length": self.mean_length,
            "success": self._success_summary(),
            "endings": {
                name: sum(e.ending == name for e in self.episodes)
                for name in ("terminated", "truncated", "cut")
            },
            "unusable_steps": self.unusable,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "successes": [e.success for e in self.episodes],
            "seeds": [e.seed for e in self.episodes],
            "notes": list(self.notes),
        }

    def _success_summary(self) -> dict[str, float] | None:
        if self.success is None:
            return None
        low, high = self.success_bounds
        once = [e.success_once for e in self.episodes if e.success_once is not None]
        return {
            "share": self.success,
            "low": low,
            "high": high,
            "episodes": len(self._told()),
            "share_once": sum(once) / len(once),
        }

    def _told(self) -> list[bool]:
        return [e.success for e in self.episodes if e.success is not None]


@dataclass(frozen=True)
class RunsEvaluation:
    """Evaluations of several runs, such as seeds of one experiment, on the same episodes."""

    runs: tuple[str, ...]
    results: tuple[Evaluation, ...]  #: one per run

    @property
    def mean(self) -> float:
        """Mean over runs of the mean return."""
        return float(np.mean([r.mean for r in self.results]))

    @property
    def bounds(self) -> tuple[float, float]:
        """Two-sided 95 % interval of the mean over runs, by Student's t on the runs' means."""
        return t_interval([r.mean for r in self.results])

    def summary(self) -> dict[str, object]:
        """Summarise in a dictionary for JSON; bounds are null where infinite."""
        low, high = (b if math.isfinite(b) else None for b in self.bounds)
        means = [r.mean for r in self.results]
        return {
            "mean": self.mean,
            "sd": float(np.std(means, ddof=1)) if len(means) > 1 else 0.0,
            "low": low,
            "high": high,
            "runs": [
                {"run": run} | r.summary() for run, r in zip(self.runs, self.results, strict=True)
            ],
        }


def _cut(episodes: Sequence[PlayedEpisode]) -> int:
    return sum(e.ending == "cut" for e in episodes)


def _t(freedom: int) -> float:
    """Look up the 97.5 % point of Student's t; beyond the table, correct the normal's."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.960 + 2.4 / freedom
