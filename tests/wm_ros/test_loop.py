"""Nodes as processes over real rclpy: camera to command, and what is recorded of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from wm_core.link.chunk import decode_chunk

pytestmark = [pytest.mark.ros]

SIM = {"task": "counting_task:Counting-v0"}
STEPS = 12


def steps_in(spool):
    """Every step in the chunks of a spool, in order."""
    return [
        s for path in sorted(spool.rglob("*.mcap")) for s in decode_chunk(path.read_bytes())[1]
    ]


def test_recorded_steps_hold_the_action_that_led_to_the_next_reward(
    processes, watcher, policy_at, report_of, tmp_path
):
    policy_at(tmp_path / "policies" / "00000000", spread=1.5)
    state = tmp_path / "state"
    processes.start("sim_node", SIM)
    processes.start(
        "policy_node", {"policy_dir": str(tmp_path / "policies"), "state_dir": str(state)}
    )
    watcher.until(
        lambda: report_of(state / "status.json").get("steps_recorded", 0) > 60, 25, "60 steps"
    )
    assert processes.stop("policy_node") == 0
    assert processes.stop("sim_node") == 0
    steps, status = steps_in(state / "spool"), report_of(state / "status.json")
    ticks = report_of(state / "ticks.json")
    assert len(steps) == status["steps_recorded"] > 60
    assert (
        ticks["ticks"]
        == len(steps)
        + sum(status["dropped"].values())
        - sum(n for reason, n in status["dropped"].items() if reason in ticks["safe_by_reason"])
        + ticks["missed_ticks"]
        - 0
        or ticks["missed_ticks"]
    )
    checked = 0
    for before, step in itertools.pairwise(steps):
        assert step.stamp_ns > before.stamp_ns
        assert step.is_first == before.is_last
        if step.is_first:
            assert step.reward == 0.0
            continue
        sent = -0.5 + (before.action[0] + 1) / 2 * 1.5
        assert step.reward == pytest.approx(sent, abs=1e-5)
        assert step.obs["image"][0, 0, 0] == before.obs["image"][0, 0, 0] + 1
        np.testing.assert_allclose(before.wish, before.action)
        checked += 1
    assert checked > 30
    ends = [s for s in steps if s.is_last and s.obs["image"][0, 0, 0] == STEPS]
    assert {bool(s.is_terminal) for s in ends} == {True, False}
    assert all(s.is_terminal == (s.obs["image"][0, 0, 1] % 2 == 1) for s in ends)
