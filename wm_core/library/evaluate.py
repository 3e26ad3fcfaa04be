"""Measure returns, lengths and successes of a policy, of random actions or of an expert."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from wm_core.contract.errors import SettingsError
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec
from wm_core.library.card_env import env_of
from wm_core.library.changes import with_changes
from wm_core.library.policies import learnt_agent, policy_of
from wm_core.library.run_folder import SETTINGS_NAME, load_settings
from wm_core.training import checkpoint as checkpoints
from wm_core.training.best import updates_of_world_alone
from wm_core.training.collect import EnvAdapter
from wm_core.training.device import Device, choose_device
from wm_core.training.evaluate import MAX_EPISODE_STEPS, open_env, run_episodes
from wm_core.training.films import Films, can_film
from wm_core.training.players import (
    AgentPlayer,
    EnginePlayer,
    ExpertPlayer,
    Player,
    RandomPlayer,
)
from wm_core.training.repeats import check_repeat
from wm_core.training.returns import Evaluation, RunsEvaluation
from wm_core.training.settings import EnvConfig

FILMED = 3  #: episodes that are filmed where nothing is said


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
    version: str | int = "newest",
    envs: int = 1,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    films: str | Path | None = None,
    film_episodes: int = FILMED,
    device: Device = "auto",
    env: EnvConfig | None = None,
    on_episode: Callable[[int, float], None] | None = None,
) -> Evaluation:
    """Run whole episodes of a task; exactly one of the first four arguments names who acts.

    Args:
        policy: folder (or .onnx file) of an exported policy.
        run: run folder: its policy of ``version``, or its checkpoint where it has no policies.
        random: uniform random actions.
        expert: the task's scripted expert.
        task: needed where policy or run does not name one.
        episodes: how many are run.
        seed: of the episodes and of the draws; the i-th is the same however many ``envs``.
        sample: draw actions as in training, instead of taking their mean.
        checkpoint: with ``run``: the training network, not the exported policy.
        version: with ``run``: newest, best, or a policy's number; of a checkpoint its updates.
        envs: environments that act side by side.
        max_episode_steps: agent steps after which an episode is cut, and counted as such.
        films: folder that receives films of the first ``film_episodes``; None: no films.
        film_episodes: how many episodes are filmed.
        device: of the training network.
        env: how the environment is made; its changes go over those that were trained with.
        on_episode: called with the number of episodes so far and the last return.

    Returns:
        Returns and lengths of the episodes, with ``mean``, ``sd`` and 95 % ``bounds``.

    Raises:
        SettingsError: for none or several actors, or a task that does not fit.
    """
    _check_one(policy=policy, run=run, random=random, expert=expert)
    if random or expert:
        who = _RANDOM if random else _EXPERT
    else:
        who = _trained(policy, run, checkpoint, version, mean=not sample, device=device)
    task = task or who.task
    if not task:
        raise SettingsError("expected the name of a task, got none: `wm tasks` lists them")
    if env is not None:
        who = _in_other_env(who, task, env)
    play = _play(who, task, min(envs, episodes), films, film_episodes)
    result = play(episodes=episodes, seed=seed, max_steps=max_episode_steps, on_episode=on_episode)
    return replace(result, actor=who.name, task=task, notes=(*who.notes, *result.notes))


def evaluate_runs(runs: Sequence[str | Path], *, task: str = "", **options: Any) -> RunsEvaluation:
    """Evaluate several runs on the same episodes, and give bounds over runs.

    Args:
        runs: run folders, such as those of several seeds.
        task: of all; where it is not named, all runs must have been made for the same.
        options: those of ``evaluate``; of ``films``, each run gets a folder of its own.

    Raises:
        SettingsError: for a run that is not there, or runs of different tasks.
    """
    tasks = {str(run): load_settings(Path(run)).task for run in runs}
    if not task and len({*tasks.values()}) > 1:
        told = ", ".join(f"{run}: {name or 'none'}" for run, name in tasks.items())
        raise SettingsError(f"expected runs of one task, got {told}; name one with --task")
    films, results = options.pop("films", None), []
    for run, name in zip(runs, folder_names(runs), strict=True):
        own = None if films is None else Path(films) / name
        results.append(evaluate(run=run, task=task, films=own, **options))
    return RunsEvaluation(tuple(map(str, runs)), tuple(results))


def folder_names(runs: Sequence[str | Path]) -> list[str]:
    """Name a folder for what belongs to each of ``runs``; no two share one.

    It is the name of the run's folder, with as many folders above it as tell it from the others
    (``a-seed_0`` and ``b-seed_0``); a run that is named twice is numbered.
    """
    parts = [Path(os.path.abspath(run)).parts for run in runs]
    names: list[str] = []
    for mine in parts:
        depth = 1
        while depth < len(mine) and len({p for p in parts if p[-depth:] == mine[-depth:]}) > 1:
            depth += 1
        base = name = "-".join(part for part in mine[-depth:] if part != os.sep)
        number = 1
        while name in names:
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names


@dataclass(frozen=True)
class _Who:
    """Who acts, and what is known of it."""

    name: str
    make: Callable[[Sequence[EnvAdapter], Spec], Player]
    task: str = ""
    spec: Spec | None = None
    notes: tuple[str, ...] = ()
    env: EnvConfig = field(default_factory=EnvConfig)


def _in_other_env(who: _Who, task: str, env: EnvConfig) -> _Who:
    """``who``, with the changes of ``env`` over the settings that it was trained with."""
    if who.spec is not None:
        check_repeat(task, env, who.spec, who.name)
    return replace(who, env=with_changes(who.env, env.changed))


_RANDOM = _Who("random actions", lambda adapters, spec: RandomPlayer(spec.action))
_EXPERT = _Who("the expert", ExpertPlayer)


def _check_one(**named: Any) -> None:
    count = sum(value not in (None, False) for value in named.values())
    if count != 1:
        raise SettingsError(
            f"expected exactly one of policy, run, random and expert, got {count} of them; "
            "on the command line: --policy, --run, --random and --expert"
        )


def _play(
    who: _Who, task: str, envs: int, films: str | Path | None, film_episodes: int
) -> Callable[..., Evaluation]:
    """Make the function that opens environments, runs episodes in them and closes them."""

    def play(*, seed: int, **options: Any) -> Evaluation:
        with ExitStack() as closers:
            adapters, spec = list[EnvAdapter](), who.spec
            for _ in range(max(1, envs)):
                adapter, spec = open_env(
                    task, seed=seed, spec=spec, env=who.env, render=films is not None
                )
                closers.callback(adapter.env.close)
                adapters.append(adapter)
            assert spec is not None
            spectator = None
            if films is not None:
                if not can_film(adapters[0], spec):
                    raise SettingsError(
                        f"task {task!r} cannot be filmed: expected one that renders rgb_array, "
                        "or a policy that sees an image"
                    )
                spectator = Films(Path(films), film_episodes, spec)
            player = who.make(adapters, spec)
            return run_episodes(adapters, player, spec, seed=seed, spectator=spectator, **options)

    return play


def _trained(
    policy: str | Path | None,
    run: str | Path | None,
    checkpoint: bool,
    version: str | int,
    *,
    mean: bool,
    device: Device,
) -> _Who:
    """Load the policy in that folder, or a policy or checkpoint of the run."""
    folder = policy if run is None else None
    if run is not None and not checkpoint:
        folder = policy_of(Path(run), version)
    if folder is not None:
        runner = PolicyRunner.load(Path(folder))
        card = runner.card
        return _Who(
            f"policy {card.version} ({folder})",
            lambda adapters, spec: EnginePlayer(runner, mean=mean),
            card.task,
            runner.spec,
            _untrained(card.learner_updates, run) if card.run_id else (),
            env_of(card),
        )
    trained = learnt_agent(Path(run or ""), version, choose_device(device))
    return _Who(
        f"checkpoint {trained.path}",
        partial(_agent_player, trained.agent, mean),
        trained.task,
        trained.spec,
        _untrained(trained.updates, run),
        trained.config.env,
    )


def _agent_player(agent: Any, mean: bool, adapters: Sequence[EnvAdapter], spec: Spec) -> Player:
    return AgentPlayer(agent, len(adapters), mean=mean)


def _untrained(updates: int, run: str | Path | None) -> tuple[str, ...]:
    """Say that what is evaluated has learnt nothing yet, where that is so.

    A policy without its run says by its updates alone whether it has.
    """
    alone = 0
    if run is not None and (Path(run) / SETTINGS_NAME).exists():
        alone = updates_of_world_alone(load_settings(Path(run)))
    if updates > alone:
        return ()
    kept = [] if run is None else checkpoints.listed(Path(run))
    newest = int(kept[-1].stem) if kept else 0
    more = f"; --checkpoint evaluates the network after {newest} updates" if newest > alone else ""
    why = "it was made before the first update"
    if updates:
        why = (
            f"it was made after {updates} updates, of which the first {alone} train the world "
            "model alone (optim.stages)"
        )
    return (f"this policy is untrained: {why}{more}",)
