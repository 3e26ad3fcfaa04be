"""A run that follows a store which others fill: what it waits for, and when it gives up."""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import pytest

from wm_core.contract.errors import StoreError
from wm_core.contract.files import read_json
from wm_core.library.train import train
from wm_core.replay.sampler import Sampler
from wm_core.training import checkpoint
from wm_core.training.waiting import RunWaiting


def test_a_run_learns_from_a_store_that_grows_until_nothing_more_comes(
    robot, small_settings, toy, tmp_path
):
    run, store, stop, seen = tmp_path / "run", tmp_path / "store", threading.Event(), []

    def on_status(status):
        if status.phase != "waiting":
            return
        acted = status.agent_steps in [steps for steps, *_ in seen]
        seen.append((status.agent_steps, status.updates, status.waiting_for))
        if status.agent_steps == 128:
            stop.set()
        elif not acted:
            robot()

    more = {"store": store, "follow": True, "on_status": on_status, **small_settings}
    assert train(run, task=toy, stop=stop, **more).phase == "stopped"
    assert [*dict.fromkeys(steps for steps, *_ in seen)] == [0, 64, 128]
    assert seen[0][1] == 0
    assert seen[0][2].startswith(f"the first step in {store}")
    assert {updates for steps, updates, _ in seen if steps == 64} == {8}  # 4 * 64 / (4 * 8)
    assert seen[-1][1] == 16
    assert seen[-1][2].startswith("more steps than the 128 that are learnt from")

    said = r"waited --train\.wait-minutes 0\.005 for more steps than the 128 that are learnt from"
    with pytest.raises(StoreError, match=said):
        train(run, resume=True, **{"train.wait_minutes": 0.005})
    assert read_json(run / "status.json")["phase"] == "failed"
    assert checkpoint.newest(run)[1]["learner"]["updates"] == 16


def test_a_run_that_waits_for_a_first_step_gives_up_in_one_line(
    robot, small_settings, toy, tmp_path
):
    more = {
        "store": tmp_path / "store",
        "follow": True,
        "train.wait_minutes": 0.005,
        **small_settings,
    }
    with pytest.raises(StoreError, match=r"for the first step in .*store, for 0:0") as gave_up:
        train(tmp_path / "run", task=toy, **more)
    assert "\n" not in str(gave_up.value)


def test_the_time_of_learning_is_no_waiting(tagged):
    tagged.fill(2)
    with contextlib.closing(tagged.open()) as store:
        sampler = Sampler(store, batch=1, length=4, rng=np.random.default_rng(0))
        waiting = RunWaiting(store, sampler, length=4, patience=None, wait_s=5.0)
        waiting.check_time(0.0)
        waiting.check_time(4.9)
        waiting.ended()  # ten minutes of learning
        waiting.check_time(600.0)
        waiting.check_time(604.9)
        with pytest.raises(StoreError, match=r"waited --train\.wait-minutes"):
            waiting.check_time(605.1)
