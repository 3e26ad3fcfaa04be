"""Makes what a learner draws its batches from: the run's store, and demonstrations beside it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.library.run_folder import TrainSettings
from wm_core.library.sources import check_is_store, check_store_fits
from wm_core.replay.demonstrations import WindowSource, WithDemonstrations
from wm_core.replay.interventions import InterventionWindows
from wm_core.replay.prefetch import PrefetchingSampler
from wm_core.replay.sampler import Sampler
from wm_core.replay.settings import SELECTORS
from wm_core.store.index import step_number
from wm_core.store.reader import Store
from wm_core.training.workers import number_of_workers

OPTION = "--replay.demonstrations"
_ROWS = 65_536  #: steps that are looked at at a time
_STREAM = 0x64656D6F  #: beside the run's seed, seeds the draws of demonstrations


def make_sampler(settings: TrainSettings, store: Store, rng: np.random.Generator) -> Sampler:
    """Make what draws windows of ``store``: a whole batch, or all but the demonstrations.

    Args:
        settings: of the run.
        store: that the run learns from.
        rng: of the draws.
    """
    replay = settings.replay
    make_selector = SELECTORS.make(replay.selector)
    interventions = None
    if replay.intervention_weight > 1:
        weight = replay.intervention_weight
        interventions = InterventionWindows(store, replay.length, weight)
    return _kind(settings)(
        store,
        batch=replay.batch - replay.demonstration_windows,
        length=replay.length,
        rng=rng,
        online_queue=replay.online_queue,
        selector=make_selector(replay.settings_of(replay.selector), rng),
        interventions=interventions,
    )


def with_demonstrations(
    settings: TrainSettings, spec: Spec, own: Sampler, undo: contextlib.ExitStack
) -> WindowSource:
    """Let ``own`` give what demonstrations leave of each batch; itself where there are none.

    Args:
        settings: of the run.
        spec: of what is learnt.
        own: draws the other windows.
        undo: closes the store of demonstrations where the start is refused after all.
    """
    replay, root = settings.replay, settings.replay.demonstrations
    if root is None:
        return own
    store = _opened(settings, root, spec)
    undo.callback(store.close)
    shown = _kind(settings)(
        store,
        batch=replay.demonstration_windows,
        length=replay.length,
        rng=np.random.default_rng((_STREAM, settings.seed)),
        online_queue=False,
    )
    return WithDemonstrations(own, shown, store)


def check_sampling(settings: TrainSettings, spec: Spec, store: Store | None) -> list[str]:
    """Look whether batches can be drawn as asked for; what there is to say, in a line each.

    Args:
        settings: of the run.
        spec: of what is learnt.
        store: that the run learns from, read up to now; None where it is not there yet.

    Raises:
        SettingsError: as ``check_demonstrations``.
    """
    return [check_demonstrations(settings, spec), without_interventions(settings, store)]


def check_demonstrations(settings: TrainSettings, spec: Spec) -> str:
    """Look whether demonstrations can be drawn, and say in one line how many; empty without any.

    Raises:
        SettingsError: where they lie in no store, have another spec or not a single window,
            where several workers share the updates, and where they are to be cloned and not named.
    """
    replay, root = settings.replay, settings.replay.demonstrations
    if root is None:
        if _cloned(settings) == "demonstrations" and not settings.init_from:
            raise SettingsError(
                f"--behavior.clone.steps demonstrations: expected {OPTION} FOLDER too, got none: "
                "name it, or clone all steps with --behavior.clone.steps all"
            )
        return ""
    check_is_store(root, OPTION)
    workers = number_of_workers(settings.workers, settings.config)
    if workers > 1:
        raise SettingsError(f"{OPTION} needs one worker, got {workers}: leave one of them out")
    with contextlib.closing(_opened(settings, root, spec)) as store:
        usable = sum(segment.length for segment in store.segments)
    return (
        f"demonstrations fill {replay.demonstration_windows} of the {replay.batch} windows of "
        f"every batch, from {usable:,} steps of {root}"
    )


def without_interventions(settings: TrainSettings, store: Store | None) -> str:
    """Say in one line that a finished store has no interventions where options ask for them.

    Args:
        settings: of the run.
        store: that the run learns from, read up to now; None where it is not there yet.
    """
    asked = {
        "--replay.intervention-weight": settings.replay.intervention_weight > 1,
        "--behavior.clone.steps": _cloned(settings) in ("interventions", "both"),
    }
    options = [name for name, is_asked in asked.items() if is_asked]
    if not options or store is None or settings.store is None or settings.follow:
        return ""
    for segment in store.segments:
        for start in range(0, segment.length, _ROWS):
            rows = store.read(segment.rows(start, min(_ROWS, segment.length - start)))
            if step_number(rows, "is_intervention").any():
                return ""
    return f"{store.root} holds no step with an intervention: {' and '.join(options)} finds none"


def _cloned(settings: TrainSettings) -> str:
    """Name the steps that are cloned; empty where none are."""
    clone = settings.behavior.clone
    return clone.steps if clone.scale else ""


def _opened(settings: TrainSettings, root: Path, spec: Spec) -> Store:
    """Open the store of demonstrations, which is only read."""
    replay = settings.replay
    cache_bytes = int(replay.demonstration_share * replay.cache_bytes)
    store = Store(root, cache_bytes=cache_bytes, spec=spec)
    try:
        store.refresh()
        check_store_fits(store, spec)
        if not any(segment.length >= replay.length for segment in store.segments):
            raise SettingsError(
                f"{OPTION} {root}: expected at least {replay.length} usable steps in a row "
                f"(--replay.length), got {store.steps} steps without such a run"
            )
    except BaseException:
        store.close()
        raise
    return store


def _kind(settings: TrainSettings) -> type[Sampler]:
    return PrefetchingSampler if settings.replay.prefetch else Sampler
