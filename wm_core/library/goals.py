"""When a training ends: what holds where nothing is said, and in words what ended it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from wm_core.library.changes import names_of_changes
from wm_core.library.run_folder import SETTINGS_NAME, TrainSettings
from wm_core.library.settings_file import read_settings_file
from wm_core.training import checkpoint
from wm_core.training.best import updates_of_world_alone
from wm_core.training.settings import TrainConfig
from wm_core.training.status import Status

MICRO_MINUTES = 30.0  #: of CPU time, for which size micro is made
#: options that say when a training ends, or that it has another source than its own environments
SAYING = frozenset({"train.steps", "train.updates", "train.minutes", "follow", "store"})


def with_goal(start: TrainSettings, named: Collection[str]) -> TrainSettings:
    """``start``, ending after ``MICRO_MINUTES`` where size micro is told nothing of its end.

    A run that exists keeps the goal that it began with, and so does what is taken from a file or
    from another run, where that states one.  Steps or updates that are asked for prolong a run
    beyond the minutes that nobody asked for.

    Args:
        start: the settings of the run before its options.
        named: dotted names of the options that are given.
    """
    if start.config_file is not None:
        named = {*named, *names_of_changes(read_settings_file(start.config_file))}
    if isinstance(start.run, Path) and (start.run / SETTINGS_NAME).exists():
        return _prolonged(start, named)
    if start.size != "micro" or start.train.minutes is not None or SAYING & set(named):
        return start
    if start.train.updates is not None or start.train.steps != TrainConfig().steps:
        return start
    train = start.train.model_copy(update={"minutes": MICRO_MINUTES})
    return start.model_copy(update={"train": train})


def _prolonged(start: TrainSettings, named: Collection[str]) -> TrainSettings:
    """``start`` without the minutes of micro, where another goal is asked for now."""
    asked, minutes = {*named} & {"train.steps", "train.updates"}, start.train.minutes
    if not asked or "train.minutes" in named or (start.size, minutes) != ("micro", MICRO_MINUTES):
        return start
    return start.model_copy(update={"train": start.train.model_copy(update={"minutes": None})})


def goals_in_words(settings: TrainSettings) -> str:
    """One sentence on when the training that ``settings`` describe will end."""
    train = settings.train
    goals = []
    if train.minutes is not None:
        goals.append(f"after {train.minutes:g} minutes of CPU time")
    if train.updates is not None:
        goals.append(f"after {train.updates:,} updates")
    if not settings.follow:
        if settings.store is None:
            goals.append(f"with {train.steps:,} agent steps")
        elif train.updates is None:
            goals.append(f"when each stored step was learnt from {train.replay_ratio:g} times")
    if not goals:
        return "it goes on until it is stopped"
    return "it ends " + (
        goals[0] if len(goals) == 1 else f"{', '.join(goals)}, whichever is first"
    )


@dataclass(frozen=True)
class Ending:
    """Why a training ended, and what can be done next."""

    reason: str
    commands: tuple[tuple[str, str], ...]  #: (what for, command line)


def ending(settings: TrainSettings, status: Status, *, stopped: bool) -> Ending:
    """Why the training of ``settings`` ended with ``status``.

    Args:
        settings: of the run.
        status: its last report.
        stopped: whether a signal ended it.
    """
    run, train = shlex.quote(str(settings.run)), settings.train
    longer = ""
    if stopped:
        reason = "it was stopped"
    elif train.updates is not None and status.updates >= train.updates:
        reason = f"{train.updates:,} updates are done"
        longer = f" --train.updates {2 * train.updates}"
    elif status.cpu_s_goal is not None and status.cpu_s >= status.cpu_s_goal:
        minutes = status.cpu_s_goal / 60
        reason = f"{minutes:g} minutes of CPU time are used"
        longer = f" --train.minutes {2 * minutes:g}"
    elif settings.store is not None or settings.follow:
        reason = f"each stored step was learnt from {train.replay_ratio:g} times"
        longer = f" --train.updates {2 * max(1, status.updates)}"
    else:
        reason = f"{train.steps:,} agent steps are collected and learnt from"
        longer = f" --train.steps {2 * train.steps}"
    commands = [("go on" if stopped else "longer", f"wm train --run {run} --resume{longer}")]
    look = f"wm show --run {run}" if _has_pictures(settings) else f"wm ui --root {run}"
    commands.append(("look", look))
    if settings.task and train.policy != "off":
        network = "" if _learnt_was_published(settings, status) else " --checkpoint"
        commands.append(("measure", f"wm evaluate --run {run} --episodes 10{network}"))
    return Ending(reason, tuple(commands))


def _has_pictures(settings: TrainSettings) -> bool:
    """Whether `wm show` can draw what the run imagines: it needs a decoder and a camera."""
    kept = checkpoint.listed(settings.run)
    if settings.world.decoder.kind == "none" or not kept:
        return False
    return bool(checkpoint.spec_in(kept[-1]).images)


def _learnt_was_published(settings: TrainSettings, status: Status) -> bool:
    """Whether a published policy has learnt anything; version 0 has not."""
    learns = status.updates > updates_of_world_alone(settings)
    return settings.publishes and status.published_version > 0 and learns
