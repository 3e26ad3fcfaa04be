"""What a run does beside learning: it publishes, evaluates, films and keeps its store small."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from wm_core.contract.errors import WmError
from wm_core.contract.files import read_json
from wm_core.contract.golden import check_golden
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import MAX_GOLDEN_BYTES, MAX_MODEL_BYTES, PolicyRunner
from wm_core.contract.spec import Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.library.export import with_surprise_limit
from wm_core.library.policies import best_policies
from wm_core.library.run_folder import TrainSettings
from wm_core.link.trainer.policy_keys import PolicyKeys
from wm_core.link.trainer.policy_repository import PolicyRepository, gates_of
from wm_core.replay.sampler import Sampler
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.store.retention import keep_within
from wm_core.training.best import Evaluate
from wm_core.training.collect import EnvAdapter
from wm_core.training.evaluate import open_env, run_episodes
from wm_core.training.learner import Learner
from wm_core.training.loggers.base import Loggers, RunAbout, find_loggers
from wm_core.training.players import AgentPlayer
from wm_core.training.provenance import commit
from wm_core.training.publisher import Publication
from wm_core.training.returns import Evaluation
from wm_core.training.rollout_video import OBSERVED, RolloutVideo, render, sample_windows
from wm_core.training.schedule import Every
from wm_core.training.status import NAME as STATUS_NAME

log = logging.getLogger(__name__)

EVALUATION_SEED = 1_000_003  #: added to the run's, so that no evaluation repeats its episodes
VIDEO_WINDOWS = 6  #: side by side in TensorBoard
LOOK_S = 1.0  #: least seconds between two looks at the size of the store ...
LOOK_SHARE = 50.0  #: ... and so many times what the last look took
SURPRISE_STEPS = 300  #: stored steps from which a published policy's limit of surprise is taken


def make_publisher(
    settings: TrainSettings, agent: Any, store: Store, run_id: str
) -> Callable[[Publication], None]:
    """Make the function that exports the agent, proves the file and publishes it."""
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


def make_pruner(settings: TrainSettings) -> Callable[[], None] | None:
    """Make the function that keeps a growing store within its size; None for a finished one."""
    if settings.store is not None and not settings.follow:
        return None
    root, limit = settings.store_root, settings.replay.store_max_bytes
    look = Every(LOOK_S, time.monotonic() - LOOK_S)

    def prune_oldest() -> None:
        begin_s = time.monotonic()
        if not look.due(begin_s):
            return
        ledger = Ledger(root / LEDGER_NAME)
        try:
            keep_within(root, ledger, limit)
        finally:
            ledger.close()
        now_s = time.monotonic()
        look.interval = max(LOOK_S, LOOK_SHARE * (now_s - begin_s))  # a large store takes long
        look.done(now_s)

    return prune_oldest


def make_video(
    settings: TrainSettings, spec: Spec, store: Store, learner: Learner
) -> Callable[[], RolloutVideo] | None:
    """Render videos with a sampler and a generator of its own, so that this changes no training.

    None where there is no camera or no decoder, or where windows end before the imagined part
    would begin.
    """
    shows = spec.images and settings.world.decoder.kind != "none"
    if not shows or settings.replay.length <= OBSERVED:
        return None

    def video() -> RolloutVideo:
        rng = np.random.default_rng((settings.seed, learner.updates))
        length = settings.replay.length
        sampler = Sampler(store, batch=VIDEO_WINDOWS, length=length, rng=rng, online_queue=False)
        windows = sample_windows(sampler, VIDEO_WINDOWS)
        return render(learner.agent, windows, seed=learner.updates)

    return video


def make_evaluator(settings: TrainSettings, spec: Spec, agent: Any) -> Evaluate | None:
    """Make the function that evaluates ``agent`` in an environment of its own.

    The environment is that of the run's task, which a store may have named.  Every
    evaluation plays the same episodes.  None where the run is not to be evaluated, or no
    environment here is what the agent was made for, which is logged.
    """
    train = settings.train
    task = settings.task
    if not train.eval_every or not task or train.policy == "off":
        return None
    seed = settings.seed + EVALUATION_SEED

    def opened() -> EnvAdapter:
        return open_env(task, seed=seed, spec=spec, env=settings.env)[0]

    if settings.store is not None or settings.follow:  # where the task may be but a name
        try:
            opened().env.close()
        except WmError as error:
            log.warning("this run is not evaluated while it trains: %s", error)
            return None

    def evaluate(stop: Callable[[], bool], on_episode: Callable[[int, float], None]) -> Evaluation:
        adapter = opened()
        try:
            found = run_episodes(
                adapter,
                AgentPlayer(agent, 1),
                spec,
                episodes=train.eval_episodes,
                seed=seed,
                max_steps=train.eval_max_steps,
                on_episode=on_episode,
                stop=stop,
            )
        finally:
            adapter.env.close()
        return replace(found, task=task)

    return evaluate


def make_keeper(settings: TrainSettings) -> Callable[[int], None]:
    """Make the function that keeps the published policy of so many updates as the best."""
    published, best = PolicyRepository(settings.run / "policies"), best_policies(settings.run)
    keys = PolicyKeys(settings.policy_keys) if settings.policy_keys else None

    def keep(updates: int) -> None:
        for version in reversed(published.versions()):
            policy = PolicyFolder(published.folder(version))
            manifest = policy.read_manifest()
            if manifest.learner_updates == updates:
                best.publish(
                    policy.read(manifest.policy, MAX_MODEL_BYTES),
                    policy.read(manifest.golden, MAX_GOLDEN_BYTES),
                    version=version,
                    keys=keys,
                    parent=manifest.parent,
                    weights_sha256=manifest.weights_sha256,
                    learner_updates=updates,
                )
                return

    return keep


def make_loggers(
    settings: TrainSettings, run_id: str
) -> Callable[[tuple[int, int] | None], Loggers]:
    """Find the loggers of a run, and make the function that opens them."""
    makers = find_loggers(settings.loggers)

    def open_all(place: tuple[int, int] | None) -> Loggers:
        at = {"updates": 0, "agent_steps": 1}[settings.log_axis]
        about = RunAbout(
            run=settings.run,
            run_id=run_id,
            settings=settings.model_dump(mode="json"),
            axis=settings.log_axis,
            resume_at=None if place is None else place[at],
        )
        return Loggers(makers, about)

    return open_all
