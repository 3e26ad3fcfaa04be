"""A run folder from its settings: everything that `wm train` has to join.

It holds settings.json, metrics.jsonl, status.json, tb/, checkpoints/, store/ and policies/.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field, ValidationError

from wm_core.agents.agent import AgentCore
from wm_core.behavior.evolution import Evolution
from wm_core.config import Config
from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.golden import check_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.replay.sampler import Sampler
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.store.retention import prune
from wm_core.training import checkpoint
from wm_core.training.collect import AgentActor, Collector, EnvAdapter, RandomActor
from wm_core.training.device import Device, choose
from wm_core.training.evaluate import evaluate, open_env
from wm_core.training.learner import ContextMemory, Learner
from wm_core.training.population import Population
from wm_core.training.provenance import commit
from wm_core.training.publisher import Publication
from wm_core.training.rollout_video import OBSERVED, RolloutVideo, render, sample_windows
from wm_core.training.seeding import Streams
from wm_core.training.sources import FinishedStore, GrowingStore, OwnEnvironments, Source
from wm_core.training.status import Status
from wm_core.training.tasks import make_env, spec_of
from wm_core.training.trainer import Hooks, Trainer

SETTINGS_NAME = "settings.json"
VIDEO_WINDOWS = 6  #: side by side in TensorBoard
CHUNK_STEPS = 64  #: agent steps that are collected between two looks at the learner


class TrainSettings(Config):
    """Train a world model and a policy.

    In sim (--task), on the steps that robots stream into a growing store (--store --follow), or
    on a finished store (--store alone).  Ctrl-C leaves a checkpoint; --resume goes on from it.
    """

    run: Path  #: the run folder: settings, metrics, checkpoints, policies
    task: str = ""  #: a name from `wm tasks`, any Gymnasium id, or one of your own as module:Id
    store: Path | None = None  #: learn from this store instead of collecting in sim
    follow: bool = False  #: robots still write to the store (without --store: RUN/store)
    spec: Path | None = None  #: JSON of what the robot sees and does, where no task says it
    resume: bool = False  #: go on from the newest checkpoint of the run folder
    publish: bool = True  #: export policies to RUN/policies
    device: Device = "auto"
    threads: int | None = Field(None, gt=0)  #: of torch; None: all cores but one
    nice: int = Field(0, ge=0, le=19)  #: make way for other processes of this session
    quiet: bool = False  #: show no progress

    @property
    def config(self) -> Config:
        """What decides the training, without where and how it runs."""
        return Config(**{name: getattr(self, name) for name in Config.model_fields})

    @property
    def store_root(self) -> Path:
        return self.store or self.run / "store"


def save_settings(settings: TrainSettings) -> str:
    """Write the resolved settings into the run folder; returns the run's id."""
    path = settings.run / SETTINGS_NAME
    run_id = _about(path).get("run_id") or uuid.uuid4().hex
    about = {
        "run_id": run_id,
        "commit": commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
    }
    settings.run.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".json.tmp")
    text = json.dumps(settings.model_dump(mode="json") | {"about": about}, indent=2)
    part.write_text(text + "\n")
    part.replace(path)
    return run_id


def load_settings(run: Path) -> TrainSettings:
    """The settings that ``run`` was made with.

    Raises:
        SettingsError: where the folder does not exist (naming the nearest) or holds none.
    """
    if not run.is_dir():
        around = (
            [p.name for p in run.parent.iterdir() if p.is_dir()] if run.parent.is_dir() else []
        )
        raise SettingsError(nearest(run.name, around, what=f"run in {run.parent}"))
    path = run / SETTINGS_NAME
    try:
        values = json.loads(path.read_text())
        values.pop("about", None)
        return TrainSettings(**values | {"run": run})
    except (OSError, ValueError, ValidationError) as error:
        raise SettingsError(f"{path}: no settings of a run ({error})") from error


def _about(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()).get("about", {}))
    except (OSError, ValueError):
        return {}


# ---------------------------------------------------------------------- joining the parts


def make_trainer(
    settings: TrainSettings,
    stop: threading.Event,
    *,
    on_status: Callable[[Status], None] | None = None,
) -> Trainer:
    """Everything that ``settings`` ask for, joined; resumed where they say so.

    Args:
        settings: resolved.
        stop: ends the training between two updates.
        on_status: told about the progress about once a second.
    """
    resumed = _resumed(settings)
    run_id = save_settings(settings)
    config = settings.config
    where = choose(settings.device)
    streams = Streams(config.seed, where)
    store = Store(settings.store_root, cache_bytes=config.replay.cache_bytes)
    store.refresh()
    spec = _spec(settings, store, resumed)
    agent = AgentCore(spec, config, generator=streams.init).to(where)
    if isinstance(agent.behavior, Evolution) and config.behavior.evolution.where == "env":
        agent.behavior.judge = Population(agent, settings.task) if settings.task else None
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
            publish=_publisher(settings, agent, spec, run_id) if settings.publish else None,
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
    """What updates ``agent`` from windows of ``store``."""
    replay = config.replay
    sampler = Sampler(
        store,
        batch=replay.batch,
        length=replay.length,
        rng=streams.sampler,
        online_queue=replay.online_queue,
    )
    return Learner(agent, sampler, ContextMemory(agent, replay.latents), streams.learner)


def _resumed(settings: TrainSettings) -> dict[str, Any] | None:
    """The state to go on from; refuses to write over a run that nobody asked to go on with."""
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


def _spec(settings: TrainSettings, store: Store, resumed: dict[str, Any] | None) -> Spec:
    """What the robot sees and does: of the checkpoint, a file, the task or the store."""
    if resumed is not None:
        return Spec.model_validate(resumed["spec"])
    if settings.spec is not None:
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
    if store.steps:
        return store.spec
    if settings.store is None and not settings.follow:
        raise SettingsError("nothing to learn: name a --task (see `wm tasks`) or a --store")
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
) -> Source:
    if settings.follow:
        return GrowingStore(store, stop)
    if settings.store is not None:
        return FinishedStore()
    if not settings.task:
        raise SettingsError("nothing to collect: name a --task (see `wm tasks`) or a --store")
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
    settings: TrainSettings, agent: Any, spec: Spec, run_id: str
) -> Callable[[Publication], None]:
    exporter = PolicyExporter(
        agent, spec, settings.config, run_id=run_id, commit=commit(), task=settings.task
    )
    repository = PolicyRepository(settings.run / "policies", keep=settings.train.keep_policies)

    def publish(due: Publication) -> None:
        onnx, golden, weights = exporter.export(due.version, due.updates, due.agent_steps)
        runner = PolicyRunner.from_bytes(onnx)  # what a robot would refuse never leaves
        check_golden(golden, runner.card, runner.call)
        repository.publish(
            onnx,
            golden,
            version=due.version,
            parent=due.parent,
            weights_sha256=weights,
            learner_updates=due.updates,
        )

    return publish


def _pruner(settings: TrainSettings) -> Callable[[], None] | None:
    """Keeps a store that grows within its size; a finished one is never touched."""
    if settings.store is not None and not settings.follow:
        return None
    root, limit = settings.store_root, settings.replay.store_max_bytes

    def prune_oldest() -> None:
        ledger = Ledger(root / LEDGER_NAME)
        try:
            prune(root, ledger, limit)
        finally:
            ledger.close()

    return prune_oldest


def _video_maker(
    settings: TrainSettings, spec: Spec, store: Store, learner: Learner
) -> Callable[[], RolloutVideo] | None:
    """Renders videos with a sampler and a generator of its own, so that this changes no training.

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
    """In sim, a judge with an environment and generators of its own."""
    if settings.follow or settings.store is not None:
        return None
    seed = settings.seed + 1_000_003

    def judge() -> dict[str, float]:
        adapter, _ = open_env(settings.task, seed=seed, spec=spec)
        actor = AgentActor(agent, torch.Generator(where).manual_seed(seed), mean=True)
        try:
            episodes = settings.train.eval_episodes
            result = evaluate(adapter, actor, spec, episodes=episodes, stop=stop.is_set)
        finally:
            adapter.env.close()
        if not result.returns:
            return {}
        return {"eval/return": result.mean, "eval/sd": result.sd}

    return judge
