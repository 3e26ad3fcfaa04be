"""All parts of a training run joined from its settings: the one place that knows every room."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wm_core.agents.agent import AgentCore
from wm_core.contract.errors import SettingsError, StoreError, WmError
from wm_core.contract.spec import Spec
from wm_core.exporting.policy_module import check_names
from wm_core.library.hooks import (
    make_evaluator,
    make_keeper,
    make_loggers,
    make_pruner,
    make_publisher,
    make_video,
)
from wm_core.library.init_from import Inherited, take_weights
from wm_core.library.init_store import check_init_store, copy_steps, left_out_of_copy
from wm_core.library.live_learner import LiveLearner, beside
from wm_core.library.processes import device_index, start_workers
from wm_core.library.resume import load_resumed
from wm_core.library.rewards import with_policy, world_model_alone
from wm_core.library.run_folder import TrainSettings, run_id_of, save_settings
from wm_core.library.sampling import (
    check_sampling,
    make_sampler,
    with_demonstrations,
)
from wm_core.library.sources import (
    as_it_begins,
    find_experience,
    make_source,
    make_store,
    stored_task,
)
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.store.reader import Store
from wm_core.training.context_memory import ContextMemory
from wm_core.training.device import choose_device
from wm_core.training.hooks import Hooks
from wm_core.training.learner import Learner
from wm_core.training.population import Population
from wm_core.training.seeding import Streams
from wm_core.training.shared import SharedLearner
from wm_core.training.sources import ExperienceSource
from wm_core.training.status import Status
from wm_core.training.trainer import Trainer
from wm_core.training.workers import number_of_workers


def make_trainer(
    settings: TrainSettings,
    stop: threading.Event,
    *,
    on_status: Callable[[Status], None] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Trainer:
    """Join all parts of the run that ``settings`` describe; resume it where they say so.

    Whatever can be refused is checked before anything is written.

    Args:
        settings: resolved.
        stop: ends the training between two updates.
        on_status: called with the progress about once a second.
        tell: called with a line on each thing that the settings alone do not say.

    Raises:
        SettingsError: for settings that do not fit one another, the task, the store or the run.
        StoreError: for a store or checkpoint that cannot be used.
    """
    resumed = load_resumed(settings)
    spec, store = find_experience(settings, resumed)
    settings = settings if resumed else with_policy(as_it_begins(settings, spec), store)
    with contextlib.ExitStack() as undo:
        if store is not None:
            undo.callback(store.close)
        check_init_store(settings, spec)
        number_of_workers(settings.workers, settings.config)
        said = [*check_sampling(settings, spec, store), world_model_alone(settings)]
        where = choose_device(settings.device, device_index(settings))
        streams = Streams(settings.seed, where)
        if store is not None and not settings.task:
            settings = settings.model_copy(update={"task": stored_task(store.root)})
        agent = _new_agent(settings, spec, streams)
        inherited = None if resumed else _begun(settings, agent)
        run_id = run_id_of(settings.run) or uuid.uuid4().hex
        if store is None:
            store = make_store(settings, spec, undo)
        begun_with = copy_steps(settings, undo)
        store.refresh()
        source = make_source(settings, spec, store, agent, streams, stop, begun_with=begun_with)
        undo.callback(source.close)
        hooks = Hooks(
            publish=make_publisher(settings, agent, store, run_id) if settings.publishes else None,
            status=on_status,
            prune=make_pruner(settings),
            loggers=make_loggers(settings, run_id),
        )
        trainer = _joined(settings, agent, store, streams, source, stop, hooks, undo)
        _go_on(trainer, resumed)
        save_settings(settings, run_id)  # the last step: a refused start changes nothing
        if inherited is not None:
            inherited.write(settings.run)
            said.append(inherited.sentence())
        for line in filter(None, [*said, left_out_of_copy(settings.run)]):
            tell(line)
        undo.pop_all()
    return trainer


def _begun(settings: TrainSettings, agent: AgentCore) -> Inherited | None:
    """Check a new run's names, and give ``agent`` the weights that it begins from, if any."""
    check_names(agent, agent.spec)  # without policies too: an export would refuse them
    if not settings.init_from:
        return None
    return take_weights(agent, settings.init_from, settings.init_part)


def _new_agent(settings: TrainSettings, spec: Spec, streams: Streams) -> AgentCore:
    """Draw the agent's weights; one that evolves gets the environment that it needs."""
    agent = AgentCore(spec, settings.config, generator=streams.init)
    agent = agent.to(streams.learner.device)
    if agent.behavior.wants_environment and settings.train.policy != "off":
        agent.behavior.fitness = _population(settings, agent)
    return agent


def _population(settings: TrainSettings, agent: AgentCore) -> Population:
    """Make what evaluates candidates in the task; a task that cannot is refused at once."""
    if not settings.task:
        raise SettingsError(
            "behavior.evolution.where env evaluates candidates in the environment of the task, "
            "expected a --task (a store may name it), got none; name one, or choose "
            "--behavior.evolution.where dream"
        )
    population = Population(agent, settings.task)
    try:
        population.check()
    except WmError as error:
        raise SettingsError(
            "behavior.evolution.where env evaluates candidates in the environment of the task, "
            f"which cannot be opened: {error}; name another --task, or choose "
            "--behavior.evolution.where dream"
        ) from error
    return population


def _joined(
    settings: TrainSettings,
    agent: AgentCore,
    store: Store,
    streams: Streams,
    source: ExperienceSource,
    stop: threading.Event,
    hooks: Hooks,
    undo: contextlib.ExitStack,
) -> Trainer:
    """Join agent, store and source; the ``hooks`` that need a learner are added here."""
    config, spec = settings.config, agent.spec
    learner = _learner(settings, store, agent, streams, undo)
    return Trainer(
        settings.run,
        config,
        spec,
        settings.task,
        store=store,
        learner=learner,
        streams=streams,
        source=source,
        stop=stop,
        hooks=replace(
            hooks,
            status=beside(hooks.status, LiveLearner(settings, learner, store)),
            video=make_video(settings, spec, store, learner),
            evaluate=make_evaluator(settings, spec, agent),
            keep_best=make_keeper(settings) if settings.publishes else None,
        ),
    )


def _go_on(trainer: Trainer, resumed: dict[str, Any] | None) -> None:
    """Go on from the checkpoint ``resumed``, and above the versions that are published."""
    if resumed is not None:
        _load(trainer, resumed)
    last = PolicyRepository(trainer.run_folder / "policies").latest()
    if last is not None:
        trainer.continue_from(last.version, last.learner_updates)


def _load(trainer: Trainer, state: dict[str, Any]) -> None:
    try:
        trainer.load_state(state)
    except (RuntimeError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise StoreError(
            f"{trainer.run_folder}: its checkpoint does not fit its settings ({reason}); begin "
            "another run, or take its settings back from settings.1.json and so on"
        ) from error


def _learner(
    settings: TrainSettings,
    store: Store,
    agent: AgentCore,
    streams: Streams,
    undo: contextlib.ExitStack,
) -> Learner:
    """Make the learner that updates ``agent`` from windows of ``store``, alone or with workers."""
    sampler = make_sampler(settings, store, streams.sampler)
    windows = with_demonstrations(settings, agent.spec, sampler, undo)
    memory = ContextMemory(agent, settings.replay.latents)
    workers = start_workers(settings, agent.spec, agent.device)
    if workers is None:
        return Learner(agent, windows, memory, streams.learner)
    undo.callback(workers.close)
    return SharedLearner(
        agent, sampler, memory, streams.learner,
        store=store, team=workers.team, leave=workers.close,
    )  # fmt: skip
