"""Several processes train one run: as one does, to the same end, and none is lost unnoticed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from wm_core import presets
from wm_core.cli.main import main
from wm_core.contract.errors import SettingsError
from wm_core.training import checkpoint
from wm_core.training.device import choose_device
from wm_core.training.workers import number_of_workers

ROOT = Path(__file__).parents[3]
TOY = "wm_toy_dot:WmDot-v0"
STEADY = ("--optim.eps", "1e-3")  # a gradient that is rounding moves no weight


@pytest.fixture(scope="module")
def stored(train_toy):
    """A store of 128 steps, to learn from."""
    return train_toy("--train.steps", "128", "--train.updates", "1", "--no-publish") / "store"


def options(tiny, store, run, *more):
    return [
        *("train", "--store", str(store), "--run", str(run), *tiny, "--no-publish", *STEADY),
        *("--replay.selector", "prioritized", *more),
    ]


def weights_of(run):
    _, state = checkpoint.newest(run)
    return {k: v for k, v in state["learner"]["agent"].items() if isinstance(v, torch.Tensor)}


@pytest.mark.long
def test_two_workers_train_what_one_does_and_one_goes_on(stored, tiny, tmp_path):
    for run, workers in (("one", "1"), ("two", "2")):
        args = options(tiny, stored, tmp_path / run, "--train.updates", "4", "--workers", workers)
        assert main(args) == 0
    assert not multiprocessing.active_children()
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for key, weights in one.items():
        torch.testing.assert_close(two[key], weights, rtol=1e-3, atol=1e-5)
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["cpu_s"] > 0 for line in lines)
    again = ["train", "--run", str(tmp_path / "two"), "--resume", "--quiet"]
    assert main([*again, "--workers", "1", "--train.updates", "6"]) == 0
    assert checkpoint.newest(tmp_path / "two")[1]["learner"]["updates"] == 6


def killing(run, by, killed):
    """Send the other worker the signal ``by`` as soon as the run has metrics."""
    for _ in range(6000):
        if (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text():
            break
        time.sleep(0.05)
    for child in multiprocessing.active_children():
        if child.name == "worker-1":
            os.kill(child.pid, by)
            killed.append(child.pid)


@pytest.mark.long
@pytest.mark.parametrize(
    ("by", "words"),
    [
        (signal.SIGKILL, "worker 1 of 2 was ended by signal 9"),
        pytest.param(signal.SIGSTOP, "did not answer within 20 s", marks=pytest.mark.slow),
    ],
)
def test_a_lost_worker_ends_the_run_with_one_line_and_a_checkpoint(
    by, words, stored, tiny, tmp_path, capsys
):
    killed, run = [], tmp_path / "run"
    killer = threading.Thread(target=killing, args=(run, by, killed))
    killer.start()
    more = ("--workers", "2", "--train.log-every", "1", "--train.updates", "100000")
    if by == signal.SIGSTOP:
        more += ("--worker-timeout-s", "20")
    assert main(options(tiny, stored, run, *more)) == 2
    killer.join()
    assert killed
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1
    assert words in said[0]
    assert "--resume" in said[0]
    assert not multiprocessing.active_children()
    updates = checkpoint.newest(run)[1]["learner"]["updates"]
    assert updates >= 1
    assert json.loads((run / "status.json").read_text())["phase"] == "failed"
    again = ["train", "--run", str(run), "--resume", "--quiet", "--workers", "1"]
    assert main([*again, "--train.updates", str(updates + 1)]) == 0


@pytest.mark.long
def test_torchrun_starts_the_workers_and_each_reads_its_own_copy(stored, tiny, tmp_path):
    shutil.copytree(stored, tmp_path / "copy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    workers = []
    for rank, store in enumerate((stored, tmp_path / "copy")):
        args = options(tiny, store, tmp_path / "run", "--train.updates", "3")
        command = [sys.executable, "-m", "wm_core.cli", *args]
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
        workers.append(
            subprocess.Popen(command, env=env | place, stderr=subprocess.PIPE, text=True)
        )
    try:
        said = [worker.communicate(timeout=600)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0, 0], said
    assert checkpoint.newest(tmp_path / "run")[1]["learner"]["updates"] == 3


def test_a_batch_that_cannot_be_shared_is_refused():
    config = presets.make("dreamer_v3", "micro")
    assert number_of_workers(4, config) == 4
    with pytest.raises(SettingsError, match=r"batch 16 .* by 3 workers.*--workers 2"):
        number_of_workers(3, config)
    with pytest.raises(SettingsError, match="at most 16 workers"):
        number_of_workers(32, config)


def test_a_search_without_gradients_has_nothing_to_share():
    with pytest.raises(SettingsError, match="leave --workers out"):
        number_of_workers(2, presets.make("world_models", "micro"))


def test_as_many_workers_as_torchrun_started(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert number_of_workers(1, presets.make("dreamer_v3", "micro")) == 2
    with pytest.raises(SettingsError, match="expected --workers 2"):
        number_of_workers(4, presets.make("dreamer_v3", "micro"))


def test_a_gpu_is_asked_for_where_none_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingsError, match="--device cuda: torch sees no CUDA device here"):
        choose_device("cuda", 1)
