"""What a run does beside learning: it publishes, evaluates, films and keeps its store small."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from wm_core.contract.files import read_json
from wm_core.contract.golden import check_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.library.export import with_surprise_limit
from wm_core.library.run_folder import TrainSettings
from wm_core.link.trainer.policy_keys import PolicyKeys
from wm_core.link.trainer.policy_repository import PolicyRepository, gates_of
from wm_core.replay.sampler import Sampler
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.store.retention import keep_within
from wm_core.training.collect import AgentActor
from wm_core.training.evaluate import open_env, run_episodes
from wm_core.training.learner import Learner
from wm_core.training.provenance import commit
from wm_core.training.publisher import Publication
from wm_core.training.rollout_video import OBSERVED, RolloutVideo, render, sample_windows
from wm_core.training.status import NAME as STATUS_NAME

VIDEO_WINDOWS = 6  #: side by side in TensorBoard
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

    def prune_oldest() -> None:
        ledger = Ledger(root / LEDGER_NAME)
        try:
            keep_within(root, ledger, limit)
        finally:
            ledger.close()

    return prune_oldest


def make_video(
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


def make_evaluator(
    settings: TrainSettings, spec: Spec, agent: Any, where: torch.device, stop: threading.Event
) -> Callable[[], dict[str, float]] | None:
    """In simulation, evaluate with an environment and generators of its own."""
    if settings.follow or settings.store is not None:
        return None
    seed = settings.seed + 1_000_003

    def evaluate() -> dict[str, float]:
        adapter, _ = open_env(settings.task, seed=seed, spec=spec, env=settings.env)
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
