"""Measure the return of a policy, of random actions or of an expert on a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from wm_core.contract.errors import SettingsError
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training import checkpoint as checkpoints
from wm_core.training.collect import AgentActor, EnvActor, RandomActor
from wm_core.training.device import Device, choose
from wm_core.training.evaluate import (
    EngineActor,
    Evaluation,
    ExpertActor,
    open_env,
    run_episodes,
)


def evaluate(
    *,
    policy: str | Path | None = None,
    run: str | Path | None = None,
    random: bool = False,
    expert: bool = False,
    task: str = "",
    episodes: int = 10,
    seed: int = 0,
    sample: bool = False,
    checkpoint: bool = False,
    device: Device = "auto",
    on_episode: Callable[[int, float], None] | None = None,
) -> Evaluation:
    """Run whole episodes of a task; exactly one of the first four arguments names who acts.

    Args:
        policy: folder (or .onnx file) of an exported policy.
        run: run folder: its newest policy, or else its newest checkpoint.
        random: uniform random actions.
        expert: the task's scripted expert.
        task: needed where policy or run does not name one.
        episodes: how many are run.
        seed: of the episodes and of the policy's draws.
        sample: draw actions as in training, instead of taking their mean.
        checkpoint: with ``run``: the training network, not the exported policy.
        device: of the training network.
        on_episode: called with the number of episodes so far and the last return.

    Returns:
        Returns and lengths of the episodes, with ``mean``, ``sd`` and 95 % ``bounds``.

    Raises:
        SettingsError: for none or several actors, or a task that does not fit.
    """
    if sum([policy is not None, run is not None, random, expert]) != 1:
        raise SettingsError("name exactly one of --policy, --run, --random and --expert")
    if random or expert:
        adapter, spec = open_env(_named(task), seed=seed)
        actor: EnvActor
        name, actor = "random actions", RandomActor(spec.action, np.random.default_rng(seed))
        if expert:
            name, actor = "the expert", ExpertActor(adapter, spec)
    elif (folder := policy or _newest_policy(run, checkpoint)) is not None:
        engine = PolicyEngine(PolicyRunner.load(Path(folder)), seed=seed, mean=not sample)
        task, spec = _named(task or engine.runner.card.task), engine.runner.spec
        adapter, _ = open_env(task, seed=seed, spec=spec)
        name, actor = f"policy {engine.runner.card.version} ({folder})", EngineActor(engine)
    else:
        where = choose(device)
        trained = checkpoints.load_agent(Path(run or ""), where)
        task, spec = _named(task or trained.task), trained.spec
        adapter, _ = open_env(task, seed=seed, spec=spec)
        generator = torch.Generator(where).manual_seed(seed)
        name, actor = (
            f"checkpoint {trained.path}",
            AgentActor(trained.agent, generator, mean=not sample),
        )
    try:
        result = run_episodes(adapter, actor, spec, episodes=episodes, on_episode=on_episode)
    finally:
        adapter.env.close()
    return replace(result, actor=name, task=task)


def _newest_policy(run: str | Path | None, checkpoint: bool) -> Path | None:
    repository = PolicyRepository(Path(run or "") / "policies")
    last = None if checkpoint else repository.latest()
    return None if last is None else repository.folder(last.version)


def _named(task: str) -> str:
    if not task:
        raise SettingsError("expected the name of a task, got none: see --task and `wm tasks`")
    return task
