"""What a learner shows of itself while somebody looks: its figures, and what it imagines.

It looks between two updates, at most so often that looking takes a hundredth of the time, and
draws no number that training draws: a run that is watched gives the same bits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_core.contract.files import json_text, write_atomically
from wm_core.library import live_folder
from wm_core.library.png import png_of
from wm_core.library.run_folder import TrainSettings
from wm_core.replay.newest import newest_window
from wm_core.store.reader import Store
from wm_core.training.dream import EpisodeDream, dream
from wm_core.training.learner import Learner
from wm_core.training.schedule import Every
from wm_core.training.status import Status

log = logging.getLogger(__name__)

FIGURES_S, DREAM_S = 2.0, 5.0  #: least seconds between two of each ...
FIGURES_SHARE, DREAM_SHARE = 0.002, 0.008  #: ... and largest share of the time
OBSERVED, AHEAD, FEWEST_AHEAD = 16, 50, 15  #: steps that are seen, imagined, at least imagined
PICTURE_PX = 128  #: longest side of a picture in a film strip
NUMBERS = 6  #: of a vector that are shown
_STATM = Path("/proc/self/statm")
_SHOWN = ("training", "collecting", "waiting")  #: phases in which the learner looks


class LiveLearner:
    """Writes the live figures of a run while somebody looks at them.

    Args:
        settings: of the run.
        learner: whose agent is shown.
        store: from which the newest episode is read.
    """

    def __init__(self, settings: TrainSettings, learner: Learner, store: Store) -> None:
        self._settings, self._learner, self._store = settings, learner, store
        self._folder, self._failed = live_folder.live_of(settings.run), False
        self._figures, self._dreams = Paced(FIGURES_S, FIGURES_SHARE), Paced(DREAM_S, DREAM_SHARE)
        self._last: dict[str, Any] = {}  # a summary of the newest dream

    def __call__(self, status: Status) -> None:
        """Write what is due; whatever fails here is logged once and ends nothing."""
        if status.phase not in _SHOWN or not live_folder.is_watched(self._settings.run):
            return
        try:
            with self._dreams.turn() as due:
                if due:
                    self._write_dream()
            with self._figures.turn() as due:
                if due:
                    self._write_figures(status)
        except Exception as error:
            if not self._failed:
                log.warning("no live figures could be made (%s); the training goes on", error)
            self._failed = True

    def _write_figures(self, status: Status) -> None:
        replay, updates = self._settings.replay, status.updates
        memory, steps = self._learner.memory, max(1, status.agent_steps)
        figures = {
            "time": status.time,
            "phase": status.phase,
            "updates": updates,
            "updates_goal": status.updates_goal,
            "updates_per_s": status.updates_per_s,
            "agent_steps": status.agent_steps,
            "agent_steps_per_s": status.agent_steps_per_s,
            "replay_ratio": round(updates * replay.batch * replay.length / steps, 3),
            "replay_ratio_goal": self._settings.train.replay_ratio,
            "steps_trained_on": len(memory) if memory.is_complete else None,
            "memory_bytes": _resident_bytes(),
            "device_bytes": _device_bytes(self._learner.agent.device),
            "latents_bytes": memory.nbytes,
            "losses": status.metrics,
            "dream": self._last,
            "pid": status.pid,
        }
        self._write(live_folder.LEARNER, json_text(figures).encode())

    def _write_dream(self) -> None:
        agent, most = self._learner.agent, OBSERVED + AHEAD
        most = min(most, agent.world.reach or most)
        found = newest_window(self._store, most, min(most, OBSERVED + FEWEST_AHEAD))
        if found is None:
            self._last = {"why": "no episode of the store is long enough yet"}
            return
        times = found.batch.reward.shape[1]
        observed = OBSERVED if times >= OBSERVED + FEWEST_AHEAD else max(1, times // 3)
        made = dream(agent, found.batch, observed, seed=0)
        about = {
            "time": round(time.time(), 3),
            "updates": self._learner.updates,
            "robot": found.robot,
            "session": found.session,
            "first_step": found.first_step,
            "period_s": agent.spec.period_s,
            **figures_of(made),
        }
        for name, png in zip(live_folder.STRIPS, film_strips(made), strict=False):
            self._write(live_folder.strip_name(name), png)
        self._write(live_folder.DREAM, json_text(about).encode())
        self._last = summary_of(made) | {"updates": self._learner.updates}

    def _write(self, name: str, data: bytes) -> None:
        write_atomically(self._folder / name, data)


class Paced:
    """Says when something may be done again: after some seconds, and so that it costs little.

    Args:
        least_s: seconds between two at least.
        share: of the time that it may take.
    """

    def __init__(self, least_s: float, share: float) -> None:
        self._least_s, self._share = least_s, share
        self._every = Every(least_s, time.monotonic() - least_s)

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Say whether it is due; the block that does it is timed, whether or not it fails."""
        begin_s = time.monotonic()
        due = self._every.due(begin_s)
        try:
            yield due
        finally:
            if due:
                now_s = time.monotonic()
                self._every.interval = max(self._least_s, (now_s - begin_s) / self._share)
                self._every.done(now_s)


def beside(first: Callable[[Status], None] | None, then: LiveLearner) -> Callable[[Status], None]:
    """Make the function that hands a status to ``first``, if there is one, and to ``then``."""

    def both(status: Status) -> None:
        if first is not None:
            first(status)
        then(status)

    return both


def figures_of(made: EpisodeDream) -> dict[str, Any]:
    """Give the numbers of a dream of T steps, for JSON.

    Lists of ``steps`` numbers: reward, reward_seen, reward_imagined, surprise.  ``error`` has one
    for each imagined step, which are also the pictures of the film strips.
    """
    error, height, width = made.error, 0, 0
    if made.truth is not None:
        height, width = reduced(made.truth[:1]).shape[1:3]
    return {
        "observed": made.observed,
        "steps": len(made.reward),
        "camera": made.camera,
        "frames": 0 if made.truth is None else len(made.truth) - made.observed,
        "frame_width": width,
        "frame_height": height,
        "error": [] if error is None else _list(error[made.observed :]),
        "reward": _list(made.reward),
        "reward_seen": _list(made.reward_seen),
        "reward_imagined": _list(made.reward_imagined),
        "surprise": _list(made.surprise),
        "surprise_is_kl": made.surprise_is_kl,
        "vectors": {
            key: {"truth": _list(truth[:, :NUMBERS]), "imagined": _list(imagined[:, :NUMBERS])}
            for key, (truth, imagined) in made.vectors.items()
        },
        "why_no_pictures": why_no_pictures(made),
        "limit": made.limit,
    }


def summary_of(made: EpisodeDream) -> dict[str, Any]:
    """Give a dream in a few numbers: mean surprise in nats, rewards summed, mean error."""
    ahead, error = slice(made.observed, None), made.error
    surprise = made.surprise[np.isfinite(made.surprise)]
    return {
        "surprise": float(surprise.mean()) if len(surprise) else None,
        "ahead": len(made.reward) - made.observed,
        "reward": float(made.reward[ahead].sum()),
        "reward_imagined": float(made.reward_imagined[ahead].sum()),
        "error": None if error is None else float(error[ahead].mean()),
    }


def why_no_pictures(made: EpisodeDream) -> str:
    """Say in a sentence why a dream has no pictures; empty where it has."""
    if made.truth is not None:
        return ""
    if made.vectors:
        return "this agent has no camera: what it measures is shown instead"
    return (
        "this world model has no decoder, so there are no pictures, only rewards and surprise; "
        "train with --world.decoder.kind detached to see what it imagines"
    )


def film_strips(made: EpisodeDream) -> list[bytes]:
    """Draw truth, imagination and their difference as PNG, imagined steps from left to right."""
    if made.truth is None or made.imagined is None or made.difference is None:
        return []
    films = (made.truth, made.imagined, made.difference)
    return [png_of(np.hstack([*reduced(film[made.observed :])])) for film in films]


def reduced(film: np.ndarray) -> np.ndarray:
    """(T, h, w, 3) ``film`` (T, H, W, 3) with every n-th pixel, so that it fits a strip."""
    step = -(-max(film.shape[1:3]) // PICTURE_PX)
    return film[:, ::step, ::step]


def _list(values: np.ndarray) -> list[Any]:
    """``values`` (...) as lists of numbers with five digits."""
    if values.ndim > 1:
        return [_list(row) for row in values]
    return [float(f"{value:.5g}") for value in values.tolist()]


def _resident_bytes() -> int | None:
    """Bytes of memory that this process holds; None where the system does not say."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _device_bytes(device: torch.device) -> int | None:
    """Bytes that torch holds on a GPU; None on the CPU."""
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else None
