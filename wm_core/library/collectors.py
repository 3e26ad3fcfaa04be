"""Makes the collectors that act beside the learner, in processes of their own."""

from __future__ import annotations

import os
import threading
from typing import Any

from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.library.own_store import tidy
from wm_core.library.run_folder import TrainSettings
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.collectors.messages import CollectorPlan
from wm_core.training.collectors.source import CollectorProcesses

CHUNK_STEPS = 64  #: agent steps that are collected between two looks at the learner


def make_collectors(
    settings: TrainSettings,
    spec: Spec,
    store: Store,
    agent: Any,
    stop: threading.Event,
    *,
    begun_with: int = 0,
) -> CollectorProcesses:
    """Start the processes; they write to the store of the run.

    Args:
        settings: of the run.
        spec: of the steps.
        store: that the run learns from.
        agent: whose weights they act with.
        stop: ends the waiting for steps.
        begun_with: steps in the store that are not of the run itself, and count for no goal.

    Raises:
        SettingsError: together with environments in processes of their own.
    """
    train = settings.train
    if train.env_processes:
        raise SettingsError(
            "--train.env-processes has no effect with --train.collectors, whose environments act "
            "in other processes already: leave it out"
        )
    tidy(settings, store)
    root, config, begun_at = settings.store_root.resolve(), settings.config, store.steps

    def plan_of(number: int, attempt: int) -> CollectorPlan:
        return CollectorPlan(
            number=number,
            root=root,
            task=settings.task,
            spec=spec,
            config=config,
            entropy=(settings.seed, number, begun_at, attempt),
            trainer=os.getpid(),
        )

    return CollectorProcesses(
        plan_of,
        agent,
        store,
        stop,
        collectors=train.collectors,
        prefill=train.prefill,
        steps=begun_with + train.steps,
        chunk=max(CHUNK_STEPS, train.envs),
        timeout_s=settings.env.step_timeout_s,
        ledger=Ledger(root / LEDGER_NAME),
    )
