"""Whether the robot gets better: returns of stored episodes with bounds, and which policy acted.

The horizontal axis is agent steps in the store, as in ``metrics.jsonl``, so that runs of every
kind, in simulation, following robots or on a finished store, are drawn alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.files import read_json
from wm_core.store.episodes import StoredEpisode
from wm_core.training.returns import t_interval

BASELINES = "baselines.json"  #: of a run folder: what random actions and the best one return
MOST_POINTS, MOST_BINS, LEAST_IN_BIN = 400, 40, 4


def counted(episodes: Sequence[StoredEpisode]) -> list[StoredEpisode]:
    """Keep the episodes whose return means something: those that are whole.

    Where a session ends without its last episode being over for good, and that is shorter than
    the one before it, somebody stopped the robot: it does not count.
    """
    whole: dict[tuple[str, str], list[StoredEpisode]] = {}
    newest: dict[tuple[str, str], int] = {}
    for episode in episodes:
        key = (episode.robot, episode.session)
        newest[key] = max(newest.get(key, -1), episode.number)
        if episode.is_whole:
            whole.setdefault(key, []).append(episode)
    stopped = set()
    for key, found in whole.items():
        found.sort(key=lambda e: e.number)
        last = found[-1]
        is_cut = last.end == "last" and last.number == newest[key]
        if is_cut and len(found) > 1 and last.steps < found[-2].steps:
            stopped.add((*key, last.number))
    return [e for e in episodes if e.is_whole and (e.robot, e.session, e.number) not in stopped]


def returns_so_far(episodes: Sequence[StoredEpisode], run: Path | None = None) -> dict[str, Any]:
    """Give the returns of ``episodes``, in order of their end, as plain data.

    Args:
        episodes: of a store, as ``EpisodeBook.episodes`` gives them.
        run: folder whose baselines are given too, where it has any.

    Returns:
        ``points``: [agent steps, return, policy version] of up to ``MOST_POINTS`` episodes;
        ``bins``: agent_steps, mean, low, high (95 % of the mean, null where unknown), episodes;
        ``versions``: [agent steps, version] where each policy acted first; ``no_policy``: mean,
        low, high and episodes of those in which none acted, null for fewer than three;
        ``baselines``: random and best, as far as they were measured.
    """
    found = counted(episodes)
    size = max(LEAST_IN_BIN, math.ceil(len(found) / MOST_BINS))
    bins = [found[i : i + size] for i in range(0, len(found), size)]
    thinned = np.linspace(0, len(found) - 1, min(MOST_POINTS, len(found))).astype(int)
    alone = [e for e in found if e.version < 0]
    baselines = {} if run is None else read_json(run / BASELINES)
    return {
        "episodes": len(found),
        "points": [[found[i].agent_steps, found[i].total, found[i].version] for i in thinned],
        "bins": [{"agent_steps": b[-1].agent_steps} | _level(b) for b in bins],
        "versions": _versions(episodes),
        "no_policy": _level(alone) if len(alone) >= 3 else None,
        "baselines": {k: baselines[k] for k in ("random", "best") if k in baselines},
    }


def _versions(episodes: Sequence[StoredEpisode]) -> list[list[int]]:
    """List [agent steps, version] where each policy acted first, at most ``MOST_POINTS``."""
    newest, found = -1, list[list[int]]()
    for episode in episodes:
        if episode.version > newest:
            newest = episode.version
            found.append([episode.agent_steps, newest])
    return found[:: max(1, math.ceil(len(found) / MOST_POINTS))]


def _level(episodes: Sequence[StoredEpisode]) -> dict[str, Any]:
    """Give mean and bounds of the returns; bounds are None where one episode tells none."""
    totals = [e.total for e in episodes]
    low, high = t_interval(totals)
    return {
        "mean": float(np.mean(totals)),
        "low": low if math.isfinite(low) else None,
        "high": high if math.isfinite(high) else None,
        "episodes": len(totals),
    }
