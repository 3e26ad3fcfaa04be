"""A signal ends a node in order, however early it comes."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.wm_ros.conftest import START

pytestmark = pytest.mark.ros


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt")).split()[1]
    return bool(int(caught, 16) & 1 << (number - 1))


@pytest.mark.parametrize(
    ("executable", "delay_s"),
    [("policy_node", 0.0), ("policy_node", 0.4), ("policy_node", 0.9), ("sim_node", 0.2)],
)
def test_a_signal_during_the_start_ends_the_node_in_order(
    processes, policy_at, executable, delay_s, tmp_path
):
    given = {"task": "counting_task:Counting-v0"}
    if executable == "policy_node":
        policy = policy_at(tmp_path / "policy", bias=0.5)
        given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    process = processes.start(executable, given, before=("-c", START.format(executable)))
    deadline = time.monotonic() + 300.0
    while not catches(process.pid, signal.SIGTERM):
        assert process.poll() is None
        assert time.monotonic() < deadline
    time.sleep(delay_s)
    assert processes.stop(executable, signal.SIGTERM) == 0
    assert "Traceback" not in processes.said(executable)


def test_the_handlers_are_set_before_anything_that_takes_time_is_imported():
    """``wm_ros.start`` itself must import nothing but the standard library's signal."""
    source = (Path(__file__).parents[2] / "wm_ros" / "start.py").read_text()
    heads = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert heads == ["from __future__ import annotations", "from wm_ros.process import signals"]
