"""Where the experience of a run comes from, and the spec that it is learnt with."""

from __future__ import annotations

import contextlib
import shutil
import threading
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wm_core.contract.compare import differences
from wm_core.contract.errors import ChunkRefused, SettingsError, nearest
from wm_core.contract.files import siblings
from wm_core.contract.spec import Spec
from wm_core.format.chunk import chunk_path
from wm_core.format.columns import read_columns
from wm_core.format.meta import ChunkMeta
from wm_core.library.changes import with_changes
from wm_core.library.collectors import CHUNK_STEPS, make_collectors
from wm_core.library.own_store import tidy
from wm_core.library.run_folder import TrainSettings
from wm_core.robot import RobotFile
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.agent_actor import AgentActor
from wm_core.training.collect import Collector, RandomActor
from wm_core.training.evaluate import open_env
from wm_core.training.exploration import noise_of
from wm_core.training.repeats import at_rate_of, check_repeat, repeat_at, usual_repeat
from wm_core.training.seeding import Streams
from wm_core.training.sources import ExperienceSource, FinishedStore, GrowingStore, OwnEnvironments
from wm_core.training.tasks import fitted, make_env, spec_of

LOOKED_AT = 8  #: newest chunks that are read for the name of their task


def find_experience(
    settings: TrainSettings, resumed: dict[str, Any] | None
) -> tuple[Spec, Store | None]:
    """Find what is learnt and where it lies; nothing is made.

    Returns:
        The spec, and the store, read up to now; None where it is not there yet and this run makes
        it.

    Raises:
        SettingsError: where there is nothing to learn from, or task, spec and store do not fit.
    """
    if settings.store is None and not settings.follow and not settings.task:
        raise SettingsError(
            "expected a --task (see `wm tasks`) or a --store to learn from, got neither"
        )
    if settings.store is not None:
        check_is_store(settings.store)
    known = _known_spec(settings, resumed)
    if known is not None and settings.task and settings.store is None and not settings.follow:
        _check_task(settings, known, resumed=resumed is not None)
    store = None
    if (settings.store_root / LEDGER_NAME).exists():
        store = _open(settings, known)
    try:
        if store is not None:
            store.refresh()
            if known is not None and not settings.follow:
                check_store_fits(store, known)
        if known is None:
            if store is None or not store.steps:
                raise SettingsError(
                    f"{settings.store_root} is still empty: name a --task or a --spec file, so "
                    "that the networks can be built before the first step arrives"
                )
            known = store.spec
    except BaseException:
        if store is not None:
            store.close()
        raise
    return known, store


def stored_task(root: Path) -> str:
    """The task that the newest chunk which can be read was recorded in; may be empty."""
    meta = _newest_meta(root)
    return "" if meta is None else meta.task


def _newest_meta(root: Path) -> ChunkMeta | None:
    """What the newest chunk which can be read says of itself; None where there is none."""
    with contextlib.closing(Ledger(root / LEDGER_NAME, read_only=True)) as ledger:
        for row in ledger.newest(LOOKED_AT):
            with contextlib.suppress(OSError, ChunkRefused):
                return read_columns(chunk_path(root, row.key).read_bytes()).meta
    return None


def _open(settings: TrainSettings, spec: Spec | None) -> Store:
    """Read the run's store; one that is not its own is not written to, not even an index."""
    return Store(
        settings.store_root,
        cache_bytes=settings.replay.cache_bytes,
        spec=spec,
        keep_indices=settings.store is None or settings.follow,
    )


def check_is_store(root: Path, option: str = "--store") -> None:
    """Refuse a folder that is no store, saying which one may be meant.

    Args:
        root: the folder.
        option: that named it, for the message.

    Raises:
        SettingsError: where it does not exist (naming the nearest), is a run folder, or holds no
            ledger.
    """
    if (root / LEDGER_NAME).is_file():
        return
    if not root.exists():
        raise SettingsError(f"{option}: {nearest(root.name, siblings(root), what='store')}")
    if (root / "store" / LEDGER_NAME).is_file():
        raise SettingsError(
            f"{option} {root}: expected a store, got the folder of a run; did you mean "
            f"{root / 'store'}?"
        )
    raise SettingsError(
        f"{option} {root}: nothing to learn from, expected a folder with a {LEDGER_NAME}, in "
        "which `wm serve` and `wm train` keep experience"
    )


def _known_spec(settings: TrainSettings, resumed: dict[str, Any] | None) -> Spec | None:
    """Take the spec from the checkpoint, a file or the task, in this order; else None."""
    given = None if settings.spec is None else _spec_in(settings.spec)
    if resumed is not None:
        spec = Spec.model_validate(resumed["spec"])
        changed = [] if given is None else differences(spec, given) + differences(given, spec)
        if changed:
            raise SettingsError(
                f"{settings.run} cannot be resumed with another --spec: {changed[0]}; leave it "
                f"out, or begin another run from its weights with --init-from {settings.run}"
            )
        return spec
    if given is not None or not settings.task:
        return given
    return _task_spec(_at_rate_of_store(settings))


def _at_rate_of_store(settings: TrainSettings) -> TrainSettings:
    """``settings`` whose task acts at the rate that the store was recorded at, if not told."""
    root = settings.store_root
    if settings.env.action_repeat is not None or not (root / LEDGER_NAME).exists():
        return settings
    meta = _newest_meta(root)
    if meta is None:
        return settings
    env = at_rate_of(settings.task, settings.env, meta.spec)
    return settings.model_copy(update={"env": env})


def as_it_begins(settings: TrainSettings, spec: Spec) -> TrainSettings:
    """``settings`` of a new run that say what would otherwise depend on where it begins.

    They say for how long an action is held, where that is known, and that images which were
    learnt by another run do not begin anew.

    Args:
        settings: of the run.
        spec: that is learnt.
    """
    if settings.init_from and settings.init_part != "encoder":
        settings = with_changes(settings, {"world.decoder.start": "gray"})
    if settings.env.action_repeat is not None or not settings.task:
        return settings
    repeat = repeat_at(settings.task, spec.period_s) or usual_repeat(settings.task)
    env = settings.env.model_copy(update={"action_repeat": repeat})
    return settings.model_copy(update={"env": env})


def _spec_in(path: Path) -> Spec:
    if path.suffix in (".yaml", ".yml"):
        return RobotFile.load(path).spec()
    try:
        return Spec.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        raise SettingsError(
            f"--spec {path}: expected a spec as JSON or a robot file (.yaml), got at "
            f"{at or 'its begin'}: {first['msg']}"
        ) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"--spec {path}: {error}") from error


def _task_spec(settings: TrainSettings, spec: Spec | None = None) -> Spec:
    fit = fitted(settings.task, settings.env, spec)
    env = make_env(settings.task, fit)
    try:
        return spec_of(env, fit)
    finally:
        env.close()


def _check_task(settings: TrainSettings, spec: Spec, *, resumed: bool) -> None:
    if not resumed:
        check_repeat(settings.task, settings.env, spec, str(settings.spec or settings.run))
    found = differences(spec, _task_spec(settings, spec), resized=True)
    if found:
        raise SettingsError(
            f"task {settings.task!r} does not fit {settings.spec or settings.run}: "
            f"{'; '.join(found)[:400]}"
        )


def check_store_fits(store: Store, spec: Spec) -> None:
    """Refuse a store of which nothing can be used because it was recorded with another spec.

    Args:
        store: read with ``spec``.
        spec: of what is to be learnt.

    Raises:
        SettingsError: saying in what the store is different.
    """
    if store.segments or not store.left_out["other spec"]:
        return
    with contextlib.closing(Store(store.root, cache_bytes=0)) as other:
        other.refresh()
        found = differences(spec, other.spec) or ["another spec"]
    raise SettingsError(
        f"{store.root} was recorded with another spec: {'; '.join(found)[:400]}; name the task "
        "that it was recorded in, or leave --task out"
    )


def make_store(settings: TrainSettings, spec: Spec, undo: contextlib.ExitStack) -> Store:
    """Make the run's own store; ``undo`` removes it again where the start is refused after all."""
    root = settings.store_root
    if not root.exists():
        undo.callback(shutil.rmtree, root, ignore_errors=True)
    Ledger(root / LEDGER_NAME).close()
    store = _open(settings, spec)
    undo.callback(store.close)
    store.refresh()
    return store


def make_source(
    settings: TrainSettings,
    spec: Spec,
    store: Store,
    agent: Any,
    streams: Streams,
    stop: threading.Event,
    *,
    begun_with: int = 0,
) -> ExperienceSource:
    """Open where new steps come from: robots, a finished store, or own environments.

    Args:
        settings: of the run.
        spec: of the steps.
        store: that the run learns from.
        agent: acts in environments of its own.
        streams: every generator of the run.
        stop: ends the waiting for robots.
        begun_with: steps in the store that are not of the run itself, and count for no goal.
    """
    if settings.follow:
        return GrowingStore(store, stop)
    if settings.store is not None:
        return FinishedStore()
    train, root = settings.train, settings.store_root
    if train.collectors:
        return make_collectors(settings, spec, store, agent, stop, begun_with=begun_with)
    _check_timeout(settings)
    tidy(settings, store)
    ledger = Ledger(root / LEDGER_NAME)
    adapters = [
        open_env(
            settings.task,
            seed=streams.env,
            spec=spec,
            env=settings.env,
            wait=stop.wait,
            process=train.env_processes,
        )[0]
        for _ in range(train.envs)
    ]
    recorders = [
        EnvRecorder(root, ledger, robot=f"sim-{i}", task=settings.task, spec=spec)
        for i in range(train.envs)
    ]
    noise = noise_of(train.explore.policy_noise, agent.head.noise_shape, streams.explore)
    return OwnEnvironments(
        Collector(adapters, recorders, spec),
        store,
        explorer=RandomActor(spec.action, streams.explore, train.explore),
        actor=AgentActor(agent, streams.actor, noise=noise),
        prefill=train.prefill,
        steps=begun_with + train.steps,
        chunk=max(CHUNK_STEPS, train.envs),
        ledger=ledger,
    )


def _check_timeout(settings: TrainSettings) -> None:
    """Refuse a limit of a step's time that nothing could enforce."""
    if settings.env.step_timeout_s is not None and not settings.train.env_processes:
        raise SettingsError(
            "env.step_timeout_s has no effect: only an environment in a process of its own can be "
            "cut off; add --train.env-processes or --train.collectors 1"
        )
