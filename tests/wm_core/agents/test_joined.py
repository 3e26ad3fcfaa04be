"""Two processes that share a batch make the update that one makes of all of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from wm_core import presets

SCRIPT = Path(__file__).with_name("share_of_updates.py")
ROOT = Path(__file__).parents[3]
#: each computes something else that is no mean over rows, or draws something else by chance
CASES = {
    "frames": (  # of which each has another number, and percentiles
        "dreamer_v3",
        {"world": {"recon": {"share": 0.4, "vector_variance": "measured"}}},
    ),
    "mean": ("dreamer_v1", {}),  # free nats of the mean
    "adaptive": ("daydreamer", {}),  # scales that follow a mean, running moments
    "barlow": ("r2dreamer", {}),  # a correlation over the batch
    "dropout": ("twm", {"world": {"transformer": {"dropout": 0.3}}}),
    "rewards": ("awm", {}),  # a baseline that is a mean over dreams
}
REST = {name: (name, {}) for name in presets.PRESETS if name != "world_models"}
STEADY = {"optim": {"eps": 1e-3}}  # else a gradient that is rounding moves weights as any other


def script():
    spec = importlib.util.spec_from_file_location("share_of_updates", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def case_of(small, preset, changes):
    parts = small(preset, vectors=True, **STEADY | changes)
    batch = parts.batch()
    names = ("obs", "prev_action", "reward", "is_first", "is_last", "is_terminal")
    return {
        "spec": parts.spec.model_dump(mode="json"),
        "config": parts.config.model_dump(mode="json"),
        "batch": {name: getattr(batch, name) for name in names},
        "updates": 3,
    }


def shared(cases, folder):
    """By case: what each of two processes has after its updates."""
    for name, case in cases.items():
        torch.save(case, folder / f"{name}.case")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), "2", str(folder)],
            env=env, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [worker.communicate(timeout=900)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert [worker.returncode for worker in workers] == [0, 0], said
    return {
        name: [torch.load(folder / f"{name}.{rank}", weights_only=True) for rank in range(2)]
        for name in cases
    }


def check_alike(small, chosen, folder):
    cases = {name: case_of(small, *case) for name, case in chosen.items()}
    for name, (first, second) in shared(cases, folder).items():
        state, metrics = script().learn(cases[name])
        for key, weights in state.items():
            assert torch.equal(first["state"][key], second["state"][key]), (name, key)
            say = f"{name}: {key}: {{}}".format
            torch.testing.assert_close(first["state"][key], weights, rtol=2e-4, atol=2e-6, msg=say)
        for key, value in metrics[-1].items():
            both = torch.stack([w["metrics"][-1][key] for w in (first, second)]).mean()
            say = f"{name}: {key}: {{}}".format
            torch.testing.assert_close(both, value, rtol=2e-3, atol=2e-4, msg=say)


@pytest.mark.long
def test_two_workers_make_the_update_of_the_joined_batch(small, tmp_path):
    check_alike(small, CASES, tmp_path)


@pytest.mark.slow
def test_so_do_two_workers_of_every_preset(small, tmp_path):
    check_alike(small, REST, tmp_path)
