"""Collectors beside the learner keep the replay ratio, and none of them can harm the run."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import torch
from torch import nn

from wm_core.cli.main import main
from wm_core.cli.progress import _numbers
from wm_core.replay.ratio import ReplayRatio
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.collectors.governor import Governor, Waits
from wm_core.training.collectors.shared_weights import SharedWeights
from wm_core.training.schedule import CpuTime
from wm_core.training.status import Status

DEADLINE_S = 300.0


def test_collectors_are_as_far_ahead_as_keeps_them_busy_and_no_farther():
    ratio = ReplayRatio(32.0, 128, prefill=1000)  # 4 steps an update
    governor = Governor(ratio, chunk=64, collectors=2, goal=100_000)
    assert governor.lead == 256  # two orders for each
    assert governor.room(0, 0) == 1256
    assert governor.room(1000, 256) == 0
    ratio.did(300)  # which use 1200 steps
    assert governor.room(1256, 0) == 200
    ratio.did(1_000_000)
    assert governor.room(99_900, 64) == 36  # the goal


def test_a_small_ratio_lets_collectors_be_two_updates_ahead():
    ratio = ReplayRatio(1.0, 1024)
    assert Governor(ratio, chunk=64, collectors=1, goal=10**6).lead == 2048
    ratio.did()
    assert ratio.due(2048) == 1  # the learner is not starved meanwhile


def test_updates_that_a_burst_leaves_out_hold_no_collector_back():
    """Else both sides would wait for each other: the steps of these updates are used up too."""
    ratio = ReplayRatio(128.0, 256, prefill=1000, burst=300)  # of 500 updates that it allows
    governor = Governor(ratio, chunk=64, collectors=1, goal=10**6)
    stored = 1000
    for _ in range(2000):
        if ratio.due(stored):
            ratio.did()
        else:
            assert governor.room(stored, 0) > 0
            stored += 64
    assert stored > 2000


def test_the_side_that_waits_more_is_named_with_its_share_of_the_last_seconds():
    waits = Waits()
    assert waits.at(0.0, 0.0, 0.0)["waits"] == "neither"
    told = waits.at(10.0, 6.0, 1.0)
    assert told["waits"] == "learner"
    assert told["learner_waits"] == 0.6
    assert told["collectors_wait"] == 0.1
    waits.at(31.0, 6.0, 1.0)
    told = waits.at(50.0, 6.0, 11.0)  # what is long past counts no more
    assert told["waits"] == "collectors"
    assert told["learner_waits"] == 0.0
    assert told["learner_waited_s"] == 6.0


def test_progress_says_who_waits():
    numbers = {"updates_per_s": 1.0, "agent_steps": 9, "agent_steps_goal": None, "episodes": 0}
    more = {"agent_steps_per_s": 1.0, "published_version": -1, "last_return": None, "time": 0.0}
    told = {"waits": "learner", "learner_waits": 0.25, "collectors_wait": 0.0}
    status = Status("training", 3, None, **numbers, **more, collectors=told)
    assert "learner waits 25 %" in _numbers(status)


def test_weights_of_every_kind_and_shape_pass_through_the_memory():
    def network() -> nn.Module:
        made = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))  # it counts batches in an int64
        made.register_buffer("flag", torch.rand(7) > 0.5)
        return made.double() if torch.rand(()) < 0 else made

    one, other = network(), network()
    one(torch.randn(4, 3))
    memory = bytearray(SharedWeights.size_of(one))
    SharedWeights(one, memory).put()
    SharedWeights(other, memory).take()
    for (name, a), (_, b) in zip(
        one.state_dict().items(), other.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_the_cpu_time_of_collectors_counts():
    beside = [0.0]
    cpu = CpuTime(100.0, beside=lambda: beside[0])
    before = cpu.seconds()
    beside[0] = 100.0
    assert cpu.seconds() >= before + 100.0
    assert cpu.used_up


def test_environments_in_processes_are_refused_beside_collectors(toy, tiny, tmp_path, capsys):
    args = ["--task", toy, "--run", str(tmp_path / "run"), *tiny, "--train.collectors", "1"]
    assert main(["train", *args, "--train.env-processes"]) == 2
    assert "leave it out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


#: the toy task, which hangs once where it finds a file
STICKY = """
import os
import time

import gymnasium
from wm_toy_dot import Dot

FILE = os.path.join(os.path.dirname(__file__), "hang")


class Sticky(Dot):
    def step(self, action):
        if os.path.exists(FILE):
            os.remove(FILE)
            time.sleep(1e6)
        return super().step(action)


gymnasium.register("WmSticky-v0", Sticky)
"""
#: 32 steps an update: the learner waits, so the collector acts all the time
HUNGRY = ("--train.collectors", "1", "--train.replay-ratio", "1", "--no-publish")
#: most of the updates that the prefill allows are never done
LEFT_OUT = ("--train.prefill", "640", "--train.burst", "1")


@pytest.fixture
def sticky(toy_folder) -> str:
    (toy_folder / "wm_sticky.py").write_text(STICKY)
    return "wm_sticky:WmSticky-v0"


def status(run) -> dict:
    try:
        return json.loads((run / "status.json").read_text())
    except (OSError, ValueError):
        return {}


def until(process, run, holds) -> dict:
    end_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < end_s:
        told = status(run)
        if told and holds(told):
            return told
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"never came: {told}")


def collectors_of(process) -> list[int]:
    """The ids of the processes that ``process`` has spawned."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/cmdline") as line:
                parent = int(stat.read().rsplit(")", 1)[1].split()[1])
                if parent == process.pid and "spawn_main" in line.read():
                    found.append(int(name))
        except OSError:
            continue
    return found


def check_nothing_is_lost(run) -> int:
    """Every chunk follows the one before it in its session; returns the steps of all."""
    ledger, expected, steps = Ledger(run / "store" / LEDGER_NAME), {}, 0
    for row in ledger.since(0):
        session = row.key[:2]
        assert row.first_step == expected.get(session, 0)
        expected[session] = row.first_step + row.steps
        steps += row.steps
    ledger.close()
    store = Store(run / "store", cache_bytes=0)
    store.refresh()
    assert (store.steps, store.skipped) == (steps, 0)
    store.close()
    return steps


def stopped(process, run) -> dict:
    """Stop trainer and collector at once, as a service manager does."""
    pids = [*collectors_of(process), process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, (out, err)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    return status(run)


def test_a_collector_that_is_killed_is_made_anew_and_nothing_is_lost(
    toy, tiny, tmp_path, start_wm
):
    run = tmp_path / "run"
    process = start_wm("train", "--task", toy, "--run", str(run), *tiny, *HUNGRY, *LEFT_OUT)
    before = until(process, run, lambda s: s["updates"] >= 2)
    (pid,) = collectors_of(process)
    os.kill(pid, signal.SIGKILL)
    after = until(process, run, lambda s: s["agent_steps"] >= before["agent_steps"] + 256)
    assert after["env_restarts"] == 1
    assert after["collectors"]["collectors"] == 1
    assert after["collectors"]["learner_waited_s"] > 0
    assert after["cpu_s"] > 0
    end = stopped(process, run)
    assert end["phase"] == "stopped"
    assert end["agent_steps"] == check_nothing_is_lost(run)
    # as many updates as the steps allow, and never more
    assert end["updates"] * 32 <= end["agent_steps"]


@pytest.mark.slow
def test_a_run_with_collectors_that_hang_and_die_goes_on_after_a_resume(
    sticky, tiny, tmp_path, start_wm, toy_folder
):
    run = tmp_path / "run"
    hungry = ("--train.collectors", "2", *HUNGRY[2:], "--env.step-timeout-s", "5")
    process = start_wm("train", "--task", sticky, "--run", str(run), *tiny, *hungry)
    before = until(process, run, lambda s: s["updates"] >= 2)
    (toy_folder / "hang").touch()
    hung = until(process, run, lambda s: s["env_restarts"] >= 1)
    until(process, run, lambda s: s["agent_steps"] >= hung["agent_steps"] + 256)
    os.kill(process.pid, signal.SIGKILL)  # its collectors end with it
    pids = collectors_of(process)
    process.wait(DEADLINE_S)
    end_s = time.monotonic() + DEADLINE_S
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < end_s:
        time.sleep(0.05)
    kept = check_nothing_is_lost(run)
    assert kept >= before["agent_steps"]
    goal = str(status(run)["updates"] + 20)
    again = start_wm("train", "--run", str(run), "--resume", "--train.updates", goal, "--quiet")
    out, err = again.communicate(timeout=DEADLINE_S)
    assert again.returncode == 0, (out, err)
    end = status(run)
    assert end["phase"] == "done"
    assert end["agent_steps"] == check_nothing_is_lost(run) > kept


BROKEN = """
import gymnasium
from wm_toy_dot import Dot


class Broken(Dot):
    def step(self, action):
        raise RuntimeError("the arm fell off")


gymnasium.register("WmBroken-v0", Broken)
"""


def test_an_environment_that_cannot_go_on_ends_the_run_in_one_line(
    toy, tiny, toy_folder, tmp_path, capsys
):
    (toy_folder / "wm_broken.py").write_text(BROKEN)
    run = tmp_path / "run"
    task = ("--task", "wm_broken:WmBroken-v0")
    assert main(["train", *task, "--run", str(run), *tiny, *HUNGRY]) == 2
    err = capsys.readouterr().err
    assert "the arm fell off" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert status(run)["phase"] == "failed"
