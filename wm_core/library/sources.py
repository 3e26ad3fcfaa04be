"""Where the experience of a run comes from, and the spec that it is learnt with."""

from __future__ import annotations

import threading
from typing import Any

from pydantic import ValidationError

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.library.run_folder import TrainSettings
from wm_core.robot import RobotFile
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.collect import AgentActor, Collector, EnvAdapter, RandomActor
from wm_core.training.seeding import Streams
from wm_core.training.sources import ExperienceSource, FinishedStore, GrowingStore, OwnEnvironments
from wm_core.training.tasks import make_env, spec_of

CHUNK_STEPS = 64  #: agent steps that are collected between two looks at the learner


def known_spec(settings: TrainSettings, resumed: dict[str, Any] | None) -> Spec | None:
    """Take the spec from the checkpoint, a file or the task, in this order; else None."""
    if resumed is not None:
        return Spec.model_validate(resumed["spec"])
    if settings.spec is not None:
        if settings.spec.suffix in (".yaml", ".yml"):
            return RobotFile.load(settings.spec).spec()
        try:
            return Spec.model_validate_json(settings.spec.read_text())
        except (OSError, ValidationError) as error:
            raise SettingsError(f"--spec {settings.spec}: {error}") from error
    if settings.task:
        env = make_env(settings.task)
        try:
            return spec_of(env)
        finally:
            env.close()
    return None


def stored_spec(settings: TrainSettings, store: Store) -> Spec:
    """Take the spec that most of what is stored was recorded with."""
    if store.steps:
        return store.spec
    raise SettingsError(
        f"{settings.store_root} is still empty: name a --task or a --spec file, so that the "
        "networks can be built before the first step arrives"
    )


def make_source(
    settings: TrainSettings,
    spec: Spec,
    store: Store,
    agent: Any,
    streams: Streams,
    stop: threading.Event,
) -> ExperienceSource:
    """Open where new steps come from: robots, a finished store, or own environments."""
    if settings.follow:
        return GrowingStore(store, stop)
    if settings.store is not None:
        return FinishedStore()
    train, root = settings.train, settings.store_root
    ledger = Ledger(root / LEDGER_NAME)
    adapters = [EnvAdapter(make_env(settings.task), spec, streams.env) for _ in range(train.envs)]
    recorders = [
        EnvRecorder(root, ledger, robot=f"sim-{i}", task=settings.task, spec=spec)
        for i in range(train.envs)
    ]
    return OwnEnvironments(
        Collector(adapters, recorders, spec),
        store,
        explorer=RandomActor(spec.action, streams.explore),
        actor=AgentActor(agent, streams.actor),
        prefill=train.prefill,
        steps=train.steps,
        chunk=max(CHUNK_STEPS, train.envs),
    )
