"""Whether the rewards of a finished store can teach a policy anything."""

from __future__ import annotations

import numpy as np

from wm_core.library.changes import with_changes
from wm_core.library.run_folder import TrainSettings
from wm_core.store.index import step_number
from wm_core.store.reader import Store

_ROWS = 65_536  #: steps that are looked at at a time


def has_reward(store: Store) -> bool:
    """Tell whether any policy could earn more or less in ``store`` than another.

    None could where every step that may be learnt from has the same reward, the first of an
    episode aside, and that is 0 or no episode ends for good.  A store without a step counts as one
    with rewards: nothing is known of it.
    """
    rewards, ends, steps = set[float](), False, 0
    with store.lock:
        for segment in store.segments:
            for start in range(0, segment.length, _ROWS):
                rows = segment.rows(start, min(_ROWS, segment.length - start))
                found = store.read(rows)
                steps += len(found)
                ends = ends or bool(step_number(found, "is_terminal").any())
                rewards.update(
                    np.unique(found["reward"][~step_number(found, "is_first")]).tolist()
                )
                if len(rewards) > 1 or (ends and rewards - {0.0}):
                    return True
    return not steps


def with_policy(settings: TrainSettings, store: Store | None) -> TrainSettings:
    """``settings`` of a new run that learns no policy where its finished ``store`` has no rewards.

    Recorded actions that are to be cloned are reason enough for a policy.
    """
    finished = settings.store is not None and not settings.follow
    if (
        store is None
        or not finished
        or settings.train.policy != "auto"
        or settings.behavior.clone.scale
    ):
        return settings
    return settings if has_reward(store) else with_changes(settings, {"train.policy": "off"})


def world_model_alone(settings: TrainSettings) -> str:
    """Say in one line that a run learns no policy, and what to do; empty where it learns one."""
    if settings.train.policy != "off":
        return ""
    if settings.store is None or settings.follow:
        return (
            "the world model alone is learnt, no policy: --train.policy off; learn one with "
            "--train.policy on"
        )
    return (
        f"{settings.store_root}: the world model alone is learnt, no policy (train.policy off; "
        "auto takes it where no reward differs from another): label rewards with `wm data label`, "
        "clone the actions with --behavior.clone.scale 0.1, or go on with --train.policy on"
    )
