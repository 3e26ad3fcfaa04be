"""A run keeps no more in memory after many updates, steps and evaluations than after a few."""

from __future__ import annotations

import gc
import threading

import numpy as np
import torch

from wm_core.library.assembly import make_trainer
from wm_core.library.changes import with_changes
from wm_core.library.train import first_settings
from wm_core.training.collect import Collector, RandomActor
from wm_core.training.evaluate import open_env

EARLY, LATE = 30, 80  #: updates


def living() -> tuple[int, int]:
    """How many objects there are that the collector of garbage follows, and how many tensors."""
    gc.collect()
    objects = gc.get_objects()
    tensors = sum(issubclass(type(found), torch.Tensor) for found in objects)
    return len(objects), tensors


def test_updates_leave_nothing_behind(robot, small_settings, toy, tmp_path):
    """With metrics, status, and checkpoints that come and go; the store does not grow."""
    robot()
    changes = {
        **small_settings,
        "task": toy,
        "store": tmp_path / "store",
        "train.updates": LATE + 1,
        "train.log_every": 5,
        "train.checkpoint_every_s": 1.0,
        "loggers": (),
    }
    settings = with_changes(first_settings(tmp_path / "run"), changes)
    trainer = make_trainer(settings, threading.Event())
    update, found = trainer.learner.update, {}

    def counted():
        if trainer.learner.updates in (EARLY, LATE):
            found[trainer.learner.updates] = living()
        return update()

    trainer.learner.update = counted
    assert trainer.train().updates == LATE + 1
    (objects_before, tensors_before), (objects_after, tensors_after) = found[EARLY], found[LATE]
    assert tensors_after - tensors_before <= 5
    assert objects_after - objects_before < (LATE - EARLY) // 2  # not one in two updates


class Forgetting:
    """A recorder that keeps nothing."""

    def add(self, step) -> None:
        pass

    def seal(self) -> None:
        pass


def test_steps_and_episodes_leave_nothing_behind(toy):
    adapter, spec = open_env(toy, seed=0)
    collector = Collector([adapter], [Forgetting()], spec)
    actor = RandomActor(spec.action, np.random.default_rng(0))
    collector.collect(actor, 100)
    before, _ = living()
    assert len(collector.collect(actor, 600)) > 25  # episodes of 20 steps
    collector.collect(actor, 1)
    after, _ = living()
    collector.close()
    assert after - before < 25
