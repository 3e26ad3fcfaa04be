"""All parts of a training run joined from its settings: the one place that knows every room."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.errors import SettingsError
from wm_core.library.hooks import make_evaluator, make_pruner, make_publisher, make_video
from wm_core.library.run_folder import TrainSettings, save_settings
from wm_core.library.sources import known_spec, make_source, stored_spec
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.replay.sampler import Sampler
from wm_core.replay.settings import SELECTORS
from wm_core.store.reader import Store
from wm_core.training import checkpoint
from wm_core.training.context_memory import ContextMemory
from wm_core.training.device import choose_device
from wm_core.training.learner import Learner
from wm_core.training.population import Population
from wm_core.training.seeding import Streams
from wm_core.training.status import Status
from wm_core.training.trainer import Hooks, Trainer


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
    known = known_spec(settings, resumed)
    store = Store(settings.store_root, cache_bytes=config.replay.cache_bytes, spec=known)
    store.refresh()
    spec = known or stored_spec(settings, store)
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
        source=make_source(settings, spec, store, agent, streams, stop),
        stop=stop,
        hooks=Hooks(
            publish=make_publisher(settings, agent, store, run_id) if settings.publish else None,
            status=on_status,
            video=make_video(settings, spec, store, learner),
            evaluate=make_evaluator(settings, spec, agent, where, stop),
            prune=make_pruner(settings),
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
