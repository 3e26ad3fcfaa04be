"""A node that was told to end does so with the exit code 0, a hundred times of a hundred."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.wm_ros.conftest import WAIT_S


@pytest.mark.ros
@pytest.mark.slow
def test_a_hundred_nodes_with_a_policy_end_cleanly(processes, policy_at, tmp_path, report_of):
    rng = random.Random(0)
    policy_at(tmp_path / "policy")
    codes = []
    for turn in range(100):
        state = tmp_path / str(turn)
        folders = {"policy_dir": str(tmp_path / "policy"), "state_dir": str(state)}
        node = processes.start("policy_node", folders)
        hangs = time.monotonic() + WAIT_S
        while not report_of(state / "status.json").get("active"):
            assert node.poll() is None, processes.said("policy_node")
            assert time.monotonic() < hangs, processes.said("policy_node")
            time.sleep(0.05)
        time.sleep(0.3 * rng.random())
        codes.append(processes.stop("policy_node", rng.choice((signal.SIGINT, signal.SIGTERM))))
    assert codes == [0] * 100
