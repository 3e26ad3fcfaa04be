"""All parts of a training run joined from its settings: the one place that knows every room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.errors import SettingsError
from wm_core.contract.files import read_json
from wm_core.contract.golden import check_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.library.export import with_surprise_limit
from wm_core.library.run_folder import TrainSettings, save_settings
from wm_core.link.trainer.policy_keys import PolicyKeys
from wm_core.link.trainer.policy_repository import PolicyRepository, gates_of
from wm_core.replay.sampler import Sampler
from wm_core.replay.settings import SELECTORS
from wm_core.robot import RobotFile
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.store.retention import keep_within
from wm_core.training import checkpoint
from wm_core.training.collect import AgentActor, Collector, EnvAdapter, RandomActor
from wm_core.training.context_memory import ContextMemory
from wm_core.training.device import choose_device
from wm_core.training.evaluate import open_env, run_episodes
from wm_core.training.learner import Learner
from wm_core.training.population import Population
from wm_core.training.provenance import commit
from wm_core.training.publisher import Publication
from wm_core.training.rollout_video import OBSERVED, RolloutVideo, render, sample_windows
from wm_core.training.seeding import Streams
from wm_core.training.sources import ExperienceSource, FinishedStore, GrowingStore, OwnEnvironments
from wm_core.training.status import NAME as STATUS_NAME
from wm_core.training.status import Status
from wm_core.training.tasks import make_env, spec_of
from wm_core.training.trainer import Hooks, Trainer

VIDEO_WINDOWS = 6  #: side by side in TensorBoard
SURPRISE_STEPS = 300  #: stored steps from which a published policy's limit of surprise is taken
CHUNK_STEPS = 64  #: agent steps that are collected between two looks at the learner


def make_trainer(
    settings: TrainSettings,
    stop: threading.Event,
    *,
    on_status: Callable[[Status], None] | None = None,
) -> Trainer:
    """Join all parts of the run that ``settings`` describe; resume it where they say so.

    Args:
        settings: resolved.
        stop: ends the training between two updates.
        on_status: called with the progress about once a second.
    """
    resumed = _resumed(settings)
    if settings.store is None and not settings.follow and not settings.task:
        raise SettingsError(
            "expected a --task (see `wm tasks`) or a --store to learn from, got neither"
        )
    run_id = save_settings(settings)
    config = settings.config
    where = choose_device(settings.device)
    streams = Streams(config.seed, where)
    known = _known_spec(settings, resumed)
    store = Store(settings.store_root, cache_bytes=config.replay.cache_bytes, spec=known)
    store.refresh()
    spec = known or _stored_spec(settings, store)
    agent = AgentCore(spec, config, generator=streams.init).to(where)
    if agent.behavior.wants_environment and settings.task:
        agent.behavior.fitness = Population(agent, settings.task)
    learner = _learner(config, store, agent, streams)
    trainer = Trainer(
        settings.run,
        config,
        spec,
        settings.task,
        store=store,
        learner=learner,
        streams=streams,
        source=_source(settings, spec, store, agent, streams, stop),
        stop=stop,
        hooks=Hooks(
            publish=_publisher(settings, agent, store, run_id) if settings.publish else None,
            status=on_status,
            video=_video_maker(settings, spec, store, learner),
            evaluate=_evaluator(settings, spec, agent, where, stop),
            prune=_pruner(settings),
        ),
    )
    if resumed is not None:
        trainer.load_state(resumed)
    last = PolicyRepository(settings.run / "policies").latest()
    if last is not None:
        trainer.continue_from(last.version, last.learner_updates)
    return trainer


def _learner(config: Config, store: Store, agent: Any, streams: Streams) -> Learner:
    """Make the learner that updates ``agent`` from windows of ``store``."""
    replay = config.replay
    make_selector = SELECTORS.make(replay.selector)
    sampler = Sampler(
        store,
        batch=replay.batch,
        length=replay.length,
        rng=streams.sampler,
        online_queue=replay.online_queue,
        selector=make_selector(replay.settings_of(replay.selector), streams.sampler),
    )
    return Learner(agent, sampler, ContextMemory(agent, replay.latents), streams.learner)


def _resumed(settings: TrainSettings) -> dict[str, Any] | None:
    """Load the state to resume from; refuse to overwrite a run without ``resume``."""
    there = checkpoint.listed(settings.run)
    if not there:
        return None
    if not settings.resume:
        raise SettingsError(
            f"{settings.run} holds a run already (checkpoint {there[-1].name}); "
            "go on with --resume, or choose another --run"
        )
    _, state = checkpoint.newest(settings.run)
    before = Config.model_validate(state["config"])
    if before.world != settings.world or before.preset != settings.preset:
        raise SettingsError(
            f"{settings.run} was trained as {before.preset} {before.size} with other --world "
            "settings; its weights do not fit these"
        )
    return state


def _known_spec(settings: TrainSettings, resumed: dict[str, Any] | None) -> Spec | None:
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


def _stored_spec(settings: TrainSettings, store: Store) -> Spec:
    """Take the spec that most of what is stored was recorded with."""
    if store.steps:
        return store.spec
    raise SettingsError(
        f"{settings.store_root} is still empty: name a --task or a --spec file, so that the "
        "networks can be built before the first step arrives"
    )


def _source(
    settings: TrainSettings,
    spec: Spec,
    store: Store,
    agent: Any,
    streams: Streams,
    stop: threading.Event,
) -> ExperienceSource:
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


def _publisher(
    settings: TrainSettings, agent: Any, store: Store, run_id: str
) -> Callable[[Publication], None]:
    exporter = PolicyExporter(
        agent, agent.spec, settings.config, run_id=run_id, commit=commit(), task=settings.task
    )
    repository = PolicyRepository(settings.run / "policies", keep=settings.train.keep_policies)
    keys = PolicyKeys(settings.policy_keys) if settings.policy_keys else None
    if keys is not None:
        keys.secret("policy")  # said now rather than at the first policy

    def publish(due: Publication) -> None:
        made = exporter.export(due.version, due.updates, due.agent_steps)
        onnx, golden, weights = with_surprise_limit(made, store, SURPRISE_STEPS)
        runner = PolicyRunner.from_bytes(onnx)  # never publish what a robot would refuse
        check_golden(golden, runner.card, runner.call)
        repository.publish(
            onnx,
            golden,
            version=due.version,
            keys=keys,
            gates=gates_of(read_json(settings.run / STATUS_NAME)),
            parent=due.parent,
            weights_sha256=weights,
            learner_updates=due.updates,
        )

    return publish


def _pruner(settings: TrainSettings) -> Callable[[], None] | None:
    """Make the function that keeps a growing store within its size; None for a finished one."""
    if settings.store is not None and not settings.follow:
        return None
    root, limit = settings.store_root, settings.replay.store_max_bytes

    def prune_oldest() -> None:
        ledger = Ledger(root / LEDGER_NAME)
        try:
            keep_within(root, ledger, limit)
        finally:
            ledger.close()

    return prune_oldest


def _video_maker(
    settings: TrainSettings, spec: Spec, store: Store, learner: Learner
) -> Callable[[], RolloutVideo] | None:
    """Render videos with a sampler and a generator of its own, so that this changes no training.

    None where there is no camera, or where windows end before the imagined part would begin.
    """
    if not spec.images or settings.replay.length <= OBSERVED:
        return None

    def video() -> RolloutVideo:
        rng = np.random.default_rng((settings.seed, learner.updates))
        length = settings.replay.length
        sampler = Sampler(store, batch=VIDEO_WINDOWS, length=length, rng=rng, online_queue=False)
        windows = sample_windows(sampler, VIDEO_WINDOWS)
        return render(learner.agent, windows, seed=learner.updates)

    return video


def _evaluator(
    settings: TrainSettings, spec: Spec, agent: Any, where: torch.device, stop: threading.Event
) -> Callable[[], dict[str, float]] | None:
    """In simulation, evaluate with an environment and generators of its own."""
    if settings.follow or settings.store is not None:
        return None
    seed = settings.seed + 1_000_003

    def evaluate() -> dict[str, float]:
        adapter, _ = open_env(settings.task, seed=seed, spec=spec)
        actor = AgentActor(agent, torch.Generator(where).manual_seed(seed), mean=True)
        try:
            episodes = settings.train.eval_episodes
            result = run_episodes(adapter, actor, spec, episodes=episodes, stop=stop.is_set)
        finally:
            adapter.env.close()
        if not result.returns:
            return {}
        return {"eval/return": result.mean, "eval/sd": result.sd}

    return evaluate
