"""What ``--resume`` may change of a run, and what stays as the run began.

``RULES`` has every setting, by its dotted name or that of its group; the longest name that fits
decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wm_core.config import Config
from wm_core.contract.errors import SettingsError, shown
from wm_core.library.run_folder import SETTINGS_NAME, TrainSettings, load_settings
from wm_core.training import checkpoint

#: free: takes effect from the resume on.  fixed: what was learnt or stored so far depends on it.
#: number: another number is free, None is not.  place: the same thing may lie elsewhere now.
#: start: has an effect at the beginning of a run alone
ResumeRule = Literal["free", "fixed", "number", "place", "start"]

OWN_NAMES = ("kwargs", "own")  #: groups whose names are a user's own

RULES: dict[str, ResumeRule] = {
    "preset": "fixed",
    "size": "fixed",
    "seed": "fixed",
    "task": "fixed",
    "world": "fixed",
    "world.decoder.start": "free",
    "behavior": "fixed",
    "behavior.explore_noise": "free",
    "behavior.entropy.scale": "free",
    "behavior.entropy.target": "free",
    "behavior.imag_starts": "free",
    "behavior.clone": "free",
    "optim": "free",
    "optim.kind": "fixed",
    "optim.stages": "fixed",
    "optim.dynamics_lr": "number",
    "optim.actor_lr": "number",
    "optim.critic_lr": "number",
    "replay": "fixed",
    "replay.cache_bytes": "free",
    "replay.store_max_bytes": "free",
    "replay.latents": "free",
    "replay.prefetch": "free",
    "replay.demonstrations": "place",
    "replay.demonstration_share": "free",
    "replay.intervention_weight": "free",
    "replay.prioritized": "free",
    "replay.balanced": "free",
    "train": "free",
    "train.burst": "start",
    "env": "fixed",
    "env.step_timeout_s": "free",
    "run": "place",
    "store": "place",
    "spec": "place",
    "config_file": "place",
    "follow": "free",
    "resume": "free",
    "publish": "free",
    "policy_keys": "free",
    "device": "free",
    "threads": "free",
    "workers": "free",
    "worker_timeout_s": "free",
    "nice": "free",
    "profile": "free",
    "quiet": "free",
    "loggers": "free",
    "log_axis": "free",
    "init_from": "start",
    "init_part": "start",
    "init_store": "start",
}


def load_resumed(settings: TrainSettings) -> dict[str, Any] | None:
    """Load the state to go on from, after a check of what has changed; None where there is none.

    Raises:
        SettingsError: where a run is there and is not to be resumed, or not with these settings.
        StoreError: where no checkpoint of it can be read.
    """
    run, there = settings.run, checkpoint.listed(settings.run)
    saved = load_settings(run) if (run / SETTINGS_NAME).exists() else None
    if not there:
        _check_begun(saved, settings)
        return None
    if not settings.resume:
        raise SettingsError(
            f"{run} holds a run already (checkpoint {there[-1].name}); "
            "go on with --resume, or choose another --run"
        )
    _, state = checkpoint.newest(run)
    before = {} if saved is None else saved.model_dump(mode="json")
    config = Config.model_validate(state["config"]).model_dump(mode="json")
    check_changes(before | config | {"task": state["task"]}, settings)
    if saved is not None:
        _check_same_store(saved.store, settings)
    return state


def _check_begun(saved: TrainSettings | None, settings: TrainSettings) -> None:
    """Check the settings of a run that began and has no checkpoint yet."""
    if saved is None:
        return
    if settings.resume:
        check_changes(saved.model_dump(mode="json"), settings)
    elif (settings.run / "store").exists() and _is_another(saved.task, settings.task):
        raise SettingsError(
            f"{settings.run} holds steps of task {saved.task!r}, got --task {settings.task!r}: "
            "name another --run"
        )


def _is_another(before: str, now: str) -> bool:
    return bool(before and now) and before != now


def rule_of(name: str) -> ResumeRule:
    """Look up the rule for the setting of the dotted ``name``; ``KeyError`` where none fits."""
    while name not in RULES:
        name, dot, _ = name.rpartition(".")
        if not dot:
            raise KeyError(name)
    return RULES[name]


def check_changes(before: Mapping[str, Any], settings: TrainSettings) -> None:
    """Refuse to resume a run with a setting that cannot change.

    Args:
        before: the settings that the run has, as ``model_dump`` gives them; settings that it does
            not have are not compared.
        settings: those to go on with.

    Raises:
        SettingsError: naming each such option with its old and its new value, and what to do.
    """
    old, new = flat(before), flat(settings.model_dump(mode="json"))
    wrong = [
        f"--{name.replace('_', '-')} (this run has {_value(old[name])}, got {_value(new[name])})"
        for name in old.keys() & new.keys()
        if old[name] != new[name] and not _may_change(name, old[name], new[name])
    ]
    if wrong:
        raise SettingsError(
            f"{settings.run} cannot be resumed with another {', '.join(sorted(wrong))}: leave "
            f"{'it' if len(wrong) == 1 else 'them'} out, or begin another run from its weights "
            f"with --init-from {settings.run}"
        )
    name = "behavior.entropy.scale"
    if settings.behavior.entropy.rule == "adaptive" and old.get(name, new[name]) != new[name]:
        raise SettingsError(
            f"{settings.run} cannot be resumed with another --behavior.entropy.scale (this run "
            f"began with {old[name]}, got {new[name]}): behavior.entropy.rule adaptive has "
            "adapted it since; leave it out, or change --behavior.entropy.target"
        )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give every value of nested settings by its dotted name; what a user names is one value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and key not in OWN_NAMES:
            found |= flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def _may_change(name: str, old: Any, new: Any) -> bool:
    if name == "task" and not old:
        return True  # a run on a store may learn its name later
    rule = rule_of(name)
    if rule == "number":
        return old is not None and new is not None
    return rule not in ("fixed", "start")


def _value(value: Any) -> str:
    return "none" if value is None or value == "" else shown(value, 60)


def _check_same_store(before: Path | None, settings: TrainSettings) -> None:
    """Refuse to go on with other experience than before; a store that was moved is the same.

    Raises:
        SettingsError: where the store of before is still where it was.
    """
    now = settings.store
    if before == now or (before is not None and now is not None and not before.exists()):
        return
    if before is not None and now is not None and now.exists() and before.samefile(now):
        return
    raise SettingsError(
        f"{settings.run} cannot be resumed with another --store (this run has {_value(before)}, "
        f"got {_value(now)}): leave it out, or begin another run from its weights with "
        f"--init-from {settings.run}"
    )
