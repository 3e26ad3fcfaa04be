"""A run that version 0.1.0 began goes on, with the moments and counts of its optimisers."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import torch

from wm_core.cli.main import main
from wm_core.training import checkpoint

FIXTURE = Path(__file__).parents[2] / "fixtures" / "runs_of_0.1.0.tar.xz"


def optimizer_states(run, kind):
    """(updates of the newest checkpoint, name of a count, state of each of its parameters)."""
    _, state = checkpoint.newest(run)
    optimizers = state["learner"]["agent"]["_extra_state"]
    states = [optimizers["laprop"]] if kind == "laprop" else optimizers["adams"]
    return optimizers["updates"], [s for one in states for s in one["state"].values()]


@pytest.mark.parametrize(
    ("preset", "kind", "count", "square"),
    [("dreamer_v3", "laprop", "updates", "square"), ("twm", "adam", "step", "exp_avg_sq")],
)
def test_an_old_run_is_resumed_and_learns(preset, kind, count, square, toy, tmp_path):
    with tarfile.open(FIXTURE) as archive:
        members = [m for m in archive if m.name.split("/")[0] == preset]
        archive.extractall(tmp_path, members, filter="data")
    run = tmp_path / preset
    updates, before = optimizer_states(run, kind)
    assert updates == 60
    assert main(["train", "--run", str(run), "--resume", "--train.updates", "66", "--quiet"]) == 0
    updates, after = optimizer_states(run, kind)
    assert updates == 66
    assert {float(state[count]) for state in after} == {66.0}
    moved = [not torch.equal(a[square], b[square]) for a, b in zip(before, after, strict=True)]
    assert all(moved)
