"""Train a world model and a policy in a run folder: what ``wm train`` calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from wm_core import presets
from wm_core.contract.errors import SettingsError
from wm_core.library.assembly import make_trainer
from wm_core.library.changes import names_of_changes, with_changes
from wm_core.library.goals import with_goal
from wm_core.library.init_from import base_settings
from wm_core.library.processes import is_other_worker, threads
from wm_core.library.run_folder import SETTINGS_NAME, TrainSettings, load_settings
from wm_core.library.run_lock import RunLock
from wm_core.library.settings_file import read_settings_file
from wm_core.store.disk import disk_named
from wm_core.training import checkpoint
from wm_core.training.allocator import keep_freed_memory
from wm_core.training.profile import traced
from wm_core.training.status import Status


def train(
    run: str | Path,
    *,
    task: str = "",
    preset: str = "",
    size: str = "",
    resume: bool = False,
    stop: threading.Event | None = None,
    on_status: Callable[[Status], None] | None = None,
    tell: Callable[[str], None] = lambda text: None,
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
        preset: the system to train; empty: that of ``config_file``, of the run to resume or to
            begin from, and else dreamer_v3.
        size: of its networks; empty: as for ``preset``, and else micro.
        resume: continue from the newest checkpoint in ``run``, with the settings of that run.
        stop: ends the training between two updates when it is set.
        on_status: called with the progress about once a second.
        tell: called with one line on what was taken from another run.
        settings: any other option of ``wm train``; those of a part as a dictionary, such as
            ``train={"updates": 1000}``, or by dotted name, ``**{"train.updates": 1000}``.

    Raises:
        SettingsError: for a setting that does not exist (naming the nearest) or does not fit, and
            where another process trains in ``run``.
        TrainingDiverged: when a loss or a weight is no longer a number.
    """
    file, origin = settings.pop("config_file", None), str(settings.get("init_from", ""))
    start = first_settings(
        Path(run),
        preset=preset,
        size=size,
        resume=resume,
        config_file=None if file is None else Path(file),
        init_from=origin,
    )
    given = {"task": task, "preset": preset, "size": size}
    changes = {k: v for k, v in given.items() if v} | {"resume": resume} | settings
    start = with_goal(start, names_of_changes(changes))
    return run_training(with_changes(start, changes), stop, on_status=on_status, tell=tell)


def first_settings(
    run: Path,
    *,
    preset: str = "",
    size: str = "",
    resume: bool = False,
    config_file: Path | None = None,
    init_from: str = "",
) -> TrainSettings:
    """Settings before any option is read.

    They are those of the run to resume; else those of the preset, or of the run to begin from
    where neither preset nor size nor file is named.  Those of the file go on top.

    Args:
        run: the run folder.
        preset: the system; empty: not named.
        size: of its networks; empty: not named.
        resume: whether the run goes on.
        config_file: settings in YAML or JSON, or a run folder that holds some.
        init_from: the run to begin from; empty: none.

    Raises:
        SettingsError: for a file that holds no settings or is for another preset, a run that is
            not there, and a preset or size that does not exist.
    """
    values = {} if config_file is None else read_settings_file(config_file)
    if resume and ((run / SETTINGS_NAME).exists() or checkpoint.listed(run) or not run.is_dir()):
        start = load_settings(run)
    else:
        for name, given in (("preset", preset), ("size", size)):
            if given and values.get(name, given) != given:
                raise SettingsError(
                    f"--config {config_file} is for {name} {values[name]}, got --{name} {given}: "
                    f"leave --{name} out, or take {name} out of the file"
                )
        named = {"preset": preset or values.get("preset"), "size": size or values.get("size")}
        config = presets.make(named["preset"] or "dreamer_v3", named["size"] or "micro")
        start = TrainSettings(**dict(config), run=run)
        if init_from and not (any(named.values()) or values):
            start = with_changes(start, base_settings(init_from))
    if config_file is None:
        return start
    try:
        start = with_changes(start, values)
    except SettingsError as error:
        raise SettingsError(f"--config {config_file}: {error}") from error
    return start.model_copy(update={"config_file": config_file})


def run_training(
    settings: TrainSettings,
    stop: threading.Event | None = None,
    *,
    on_status: Callable[[Status], None] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Status:
    """Train as ``settings`` say, with torch's threads as they say; returns how far it came."""
    before = torch.get_num_threads()
    if settings.nice:
        os.nice(settings.nice)
    if is_other_worker():
        raise SettingsError("torchrun starts several processes: let it start `wm train`")
    torch.set_num_threads(threads(settings))
    keep_freed_memory()
    try:
        with disk_named(settings.run), RunLock(settings.run):
            stop = stop or threading.Event()
            trainer = make_trainer(settings, stop, on_status=on_status, tell=tell)
            with (
                traced(trainer.learner, settings.run, tell) if settings.profile else nullcontext()
            ):
                return trainer.train()
    finally:
        torch.set_num_threads(before)
