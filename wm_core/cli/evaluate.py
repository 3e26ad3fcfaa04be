"""``wm evaluate``: what a policy is worth, from the exported file or from a run's checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import Frozen, Spec
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training import checkpoint
from wm_core.training.collect import AgentActor, EnvActor, EnvAdapter, RandomActor
from wm_core.training.device import Device, choose
from wm_core.training.evaluate import EngineActor, Evaluation, ExpertActor, evaluate, open_env


class EvaluateSettings(Frozen):
    """Run whole episodes of a task and report the mean return with its 95 % bounds.

    Name exactly one of --policy, --run, --random and --expert.
    """

    policy: Path | None = None  #: folder (or .onnx file) of an exported policy
    run: Path | None = None  #: run folder: its newest policy, or else its newest checkpoint
    random: bool = False  #: uniform actions
    expert: bool = False  #: the task's scripted expert
    task: str = ""  #: where the policy does not say; see `wm tasks`
    episodes: int = Field(10, gt=0)
    seed: int = Field(0, ge=0)  #: of the episodes and of the policy's draws
    sample: bool = False  #: draw actions as in training, instead of taking their mean
    checkpoint: bool = False  #: with --run: the training network, not the exported policy
    device: Device = "auto"  #: for the training network
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False  #: one JSON object instead


def main(argv: Sequence[str]) -> int:
    """Evaluate and report; returns the exit status."""
    settings = parse(EvaluateSettings, argv, verb="evaluate")
    named = [settings.policy, settings.run, settings.random or None, settings.expert or None]
    if sum(n is not None for n in named) != 1:
        raise SettingsError("name exactly one of --policy, --run, --random and --expert")
    who, task, adapter, actor, spec = _contest(settings)
    quiet = Console(stderr=True, quiet=not Console(stderr=True).is_terminal)
    try:
        with quiet.status(f"{who} on {task}") as shown:
            result = evaluate(
                adapter,
                actor,
                spec,
                episodes=settings.episodes,
                on_episode=lambda n, r: shown.update(f"{n}/{settings.episodes} episodes, {r:.1f}"),
            )
    finally:
        adapter.env.close()
    _report(result, who, task, as_json=settings.json_)
    return 0


def _contest(settings: EvaluateSettings) -> tuple[str, str, EnvAdapter, EnvActor, Spec]:
    """Who acts (in words), on which task, in which environment, and by what spec."""
    seed = settings.seed
    if settings.random or settings.expert:
        adapter, spec = open_env(_task(settings, ""), seed=seed)
        if settings.expert:
            return "the expert", settings.task, adapter, ExpertActor(adapter, spec), spec
        explorer = RandomActor(spec.action, np.random.default_rng(seed))
        return "random actions", settings.task, adapter, explorer, spec
    folder = settings.policy or _newest_policy(settings)
    if folder is not None:
        engine = PolicyEngine(PolicyRunner.load(folder), seed=seed, mean=not settings.sample)
        card, spec = engine.runner.card, engine.runner.spec
        task = _task(settings, card.task)
        adapter, _ = open_env(task, seed=seed, spec=spec)
        return f"policy {card.version} ({folder})", task, adapter, EngineActor(engine), spec
    assert settings.run is not None
    where = choose(settings.device)
    trained = checkpoint.load_agent(settings.run, where)
    task = _task(settings, trained.task)
    adapter, _ = open_env(task, seed=seed, spec=trained.spec)
    generator = torch.Generator(where).manual_seed(seed)
    actor = AgentActor(trained.agent, generator, mean=not settings.sample)
    return f"checkpoint {trained.path}", task, adapter, actor, trained.spec


def _newest_policy(settings: EvaluateSettings) -> Path | None:
    if settings.run is None or settings.checkpoint:
        return None
    repository = PolicyRepository(settings.run / "policies")
    last = repository.latest()
    return None if last is None else repository.folder(last.version)


def _task(settings: EvaluateSettings, known: str) -> str:
    task = settings.task or known
    if not task:
        raise SettingsError("name a --task: see `wm tasks`")
    return task


def _report(result: Evaluation, who: str, task: str, *, as_json: bool) -> None:
    out = Console(soft_wrap=True)
    if as_json:
        summary = {"task": task, "policy": who} | result.summary()
        out.print(json.dumps(summary), markup=False, highlight=False)
        return
    low, high = result.bounds
    out.print(f"{who} on {task}: {len(result.returns)} episodes", markup=False, highlight=False)
    out.print(f"return {result.mean:.1f}  (sd {result.sd:.1f}, 95 % of the mean {low:.1f} .. "
              f"{high:.1f})", highlight=False)  # fmt: skip
