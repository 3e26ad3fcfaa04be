"""A write that ends at any system call leaves a store, a ledger and a spool that open."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("interrupted.py")
NOT_PERMITTED = 77
WORKLOADS = ("group", "checkpoint", "prune", "quarantine", "migration", "rebuild", "seal")


def kill_at_every(stride, workload, folder):
    command = [sys.executable, SCRIPT, workload, str(stride), folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1600, check=False)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("needs the right to trace processes (ptrace)")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_was_said_to_be_durable_is_there_after_a_kill(workload, tmp_path):
    found = kill_at_every(13, workload, tmp_path)
    assert found["calls"] >= 20
    assert found["kills"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS)
def test_what_was_said_to_be_durable_is_there_after_a_kill_at_every_call(workload, tmp_path):
    found = kill_at_every(1, workload, tmp_path)
    assert found["kills"] == found["calls"] >= 20


def test_a_promise_that_comes_too_early_is_noticed(tmp_path):
    """The test itself can fail: a workload that speaks before it is durable is caught."""
    command = [sys.executable, SCRIPT, "too_early", "1", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == NOT_PERMITTED:
        pytest.skip("needs the right to trace processes (ptrace)")
    assert done.returncode == 1
    assert "has no row" in done.stderr
