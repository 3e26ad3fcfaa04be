"""Train a world model and a policy in a run folder: what ``wm train`` calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wm_core import presets
from wm_core.library.assembly import make_trainer
from wm_core.library.changes import dotted, with_changes
from wm_core.library.goals import with_goal
from wm_core.library.run_folder import SETTINGS_NAME, TrainSettings, load_settings
from wm_core.library.run_lock import RunLock
from wm_core.training import checkpoint
from wm_core.training.status import Status


def train(
    run: str | Path,
    *,
    task: str = "",
    preset: str = "dreamer_v3",
    size: str = "micro",
    resume: bool = False,
    stop: threading.Event | None = None,
    on_status: Callable[[Status], None] | None = None,
    **settings: Any,
) -> Status:
    """Train until the goal, and leave checkpoints and policies in ``run``.

    ``train("runs/twm", task="seek", preset="twm", train={"updates": 1000})`` does what
    ``wm train --run runs/twm --task seek --preset twm --train.updates 1000`` does.

    In size micro it ends after 30 minutes of CPU time where no setting says when, as
    ``train.steps``, ``train.updates`` and ``train.minutes`` do.

    Args:
        run: the run folder.
        task: a name from `wm tasks`, any Gymnasium id, or one of your own as module:Id.
        preset: the system to train.
        size: of its networks.
        resume: continue from the newest checkpoint in ``run``, with the settings of that run.
        stop: ends the training between two updates when it is set.
        on_status: called with the progress about once a second.
        settings: any other option of ``wm train``; those of a part as a dictionary, such as
            ``train={"updates": 1000}``, or by dotted name, ``**{"train.updates": 1000}``.

    Raises:
        SettingsError: for a setting that does not exist (naming the nearest) or does not fit, and
            where another process trains in ``run``.
        TrainingDiverged: when a loss or a weight is no longer a number.
    """
    start = first_settings(Path(run), preset=preset, size=size, resume=resume)
    given = {"task": task} if task else {}
    changes = given | {"resume": resume} | settings
    start = with_goal(start, dotted(changes))
    return run_training(with_changes(start, changes), stop, on_status=on_status)


def first_settings(run: Path, *, preset: str, size: str, resume: bool) -> TrainSettings:
    """Settings before any option: those of the run to resume, or those of the preset."""
    if resume and ((run / SETTINGS_NAME).exists() or checkpoint.listed(run) or not run.is_dir()):
        return load_settings(run)
    return TrainSettings(**dict(presets.make(preset, size)), run=run)


def run_training(
    settings: TrainSettings,
    stop: threading.Event | None = None,
    *,
    on_status: Callable[[Status], None] | None = None,
) -> Status:
    """Train as ``settings`` say, with torch's threads as they say; returns how far it came."""
    before = torch.get_num_threads()
    if settings.nice:
        os.nice(settings.nice)
    torch.set_num_threads(_threads() if settings.threads is None else settings.threads)
    try:
        with RunLock(settings.run):
            return make_trainer(settings, stop or threading.Event(), on_status=on_status).train()
    finally:
        torch.set_num_threads(before)


def _threads() -> int:
    """All cores but one.

    Torch's threads wait for each other by spinning: where another process takes one of their
    cores, as a simulator or a robot's nodes do, an update takes forty times as long.
    """
    return max(1, (os.cpu_count() or 2) - 1)
