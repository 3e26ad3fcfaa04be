"""For how many steps of a task an action is held: what is asked for, usual, or was trained at.

This project's own tasks count control steps of the simulation, as published work does; any other
task counts its own steps.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.contract.views import split_view
from wm_core.training.settings import EnvConfig
from wm_core.training.wrappers import Repeat

USUAL = "action_repeat"  #: key of an environment's metadata that says what is usual
_TOLERANCE = 1e-3  #: share of a control step by which a period may be off


def usual_repeat(task: str) -> int | None:
    """Tell what ``task`` names as its usual repeat; None where it names none."""
    own: int | None = _own("usual_repeat", task)
    return own if own is not None else stated_repeat(_metadata(task), task)


def stated_repeat(metadata: Any, task: str) -> int | None:
    """Read the usual repeat in the ``metadata`` of an environment; None where there is none.

    Raises:
        SettingsError: for one that is no whole number of at least 1.
    """
    stated = metadata.get(USUAL) if hasattr(metadata, "get") else None
    if stated is None:
        return None
    if isinstance(stated, bool) or not isinstance(stated, int) or stated < 1:
        raise SettingsError(
            f"task {task!r}: metadata[{USUAL!r}] is {stated!r}, expected the steps that an action "
            "is held for, a whole number from 1; leave it out for 1"
        )
    return stated


def repeat_at(task: str, period_s: float) -> int | None:
    """Tell the control steps in ``period_s`` of an own task; None where that is not known."""
    control_s: float | None = _own("control_s", task)
    if control_s is None:
        return None
    steps = period_s / control_s
    whole = round(steps)
    return whole if whole >= 1 and abs(steps - whole) <= _TOLERANCE * whole else None


def at_rate_of(task: str, settings: EnvConfig, spec: Spec) -> EnvConfig:
    """Adapt ``settings`` so that an own task acts at the rate of ``spec``.

    The rate is what a run was trained at, whatever older settings call it.
    """
    found = repeat_at(task, spec.period_s)
    if found is None:
        return settings
    kwargs = {name: value for name, value in settings.kwargs.items() if name != USUAL}
    return settings.model_copy(update={"action_repeat": found, "kwargs": kwargs})


def check_repeat(task: str, settings: EnvConfig, spec: Spec, whose: str) -> None:
    """Refuse a repeat that is asked for where ``spec`` has another rate.

    Raises:
        SettingsError: naming both, and ``whose`` the spec is.
    """
    asked, found = settings.action_repeat, repeat_at(task, spec.period_s)
    if asked is not None and found is not None and asked != found:
        raise SettingsError(
            f"env.action_repeat {asked} does not fit {whose}, whose agent step of "
            f"{spec.period_s:g} s is {found} control steps of task {task!r}: leave it out"
        )


def repeats_of(env: gymnasium.Env) -> int:
    """Count the steps of the task that ``env`` takes in one of its own."""
    times = 1
    while isinstance(env, gymnasium.Wrapper):
        times *= env.times if isinstance(env, Repeat) else 1
        env = env.env
    return times


def _own(function: str, task: str) -> Any:
    """Ask the module of this project's tasks; None where it is not installed."""
    try:
        repeats = importlib.import_module("sim.repeats")
    except ModuleNotFoundError:
        return None
    return getattr(repeats, function)(split_view(task)[0])


def _metadata(task: str) -> Any:
    """Look up the metadata of the class of ``task``; {} where it does not load."""
    try:
        entry: Any = gymnasium.spec(split_view(task)[0]).entry_point
        creator = load_env_creator(entry) if isinstance(entry, str) else entry
    except Exception:  # whoever makes the environment says what is wrong with it
        return {}
    return getattr(creator, "metadata", {})
