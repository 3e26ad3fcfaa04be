"""Measure the return of a policy, of random actions or of an expert on a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from wm_core.contract.errors import SettingsError
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import Spec
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training import checkpoint as checkpoints
from wm_core.training.collect import AgentActor, EnvActor, RandomActor
from wm_core.training.device import Device, choose_device
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
    named = sum([policy is not None, run is not None, random, expert])
    if named != 1:
        raise SettingsError(
            f"expected exactly one of policy, run, random and expert, got {named} of them; "
            "on the command line: --policy, --run, --random and --expert"
        )
    spec = actor = None
    name = "random actions" if random else "the expert"
    if not (random or expert):
        folder = policy or _newest_policy(run, checkpoint)
        name, known, spec, actor = _trained(folder, run, seed, not sample, device)
        task = task or known
    if not task:
        raise SettingsError("expected the name of a task, got none: `wm tasks` lists them")
    adapter, spec = open_env(task, seed=seed, spec=spec)
    try:
        if random:
            actor = RandomActor(spec.action, np.random.default_rng(seed))
        who = actor or ExpertActor(adapter, spec)
        result = run_episodes(adapter, who, spec, episodes=episodes, on_episode=on_episode)
    finally:
        adapter.env.close()
    return replace(result, actor=name, task=task)


def _trained(
    folder: str | Path | None, run: str | Path | None, seed: int, mean: bool, device: Device
) -> tuple[str, str, Spec, EnvActor]:
    """Load the policy in ``folder``, else the checkpoint in ``run``: name, task, spec, actor."""
    if folder is not None:
        engine = PolicyEngine(PolicyRunner.load(Path(folder)), seed=seed, mean=mean)
        card, spec = engine.runner.card, engine.runner.spec
        return f"policy {card.version} ({folder})", card.task, spec, EngineActor(engine)
    where = choose_device(device)
    trained = checkpoints.load_agent(Path(run or ""), where)
    actor = AgentActor(trained.agent, torch.Generator(where).manual_seed(seed), mean=mean)
    return f"checkpoint {trained.path}", trained.task, trained.spec, actor


def _newest_policy(run: str | Path | None, checkpoint: bool) -> Path | None:
    repository = PolicyRepository(Path(run or "") / "policies")
    last = None if checkpoint else repository.latest()
    return None if last is None else repository.folder(last.version)
