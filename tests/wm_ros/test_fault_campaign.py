"""A short part of the fault campaign: every fault stops the robot, is named, and is survived.

How soon the robot stops is measured by the whole campaign, on a machine that is not busy.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.wm_ros.conftest import ROOT, WAIT_S
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec

pytestmark = [pytest.mark.ros, pytest.mark.long]

SPEC = Spec(
    images={"image": ImageSpec(height=32, width=32)},
    vectors={"proprio": VectorSpec(size=3, names=("shoulder", "elbow", "wrist"))},
    action=ActionSpec(low=(-0.5, -2.0), high=(1.0, 3.0), names=("forward", "turn")),
    period_s=0.1,
)


def test_twenty_faults_each_stop_the_robot_for_the_reason_that_is_said_and_are_survived(
    processes, policy_at, tmp_path
):
    policy_at(tmp_path / "policies" / "0", bias=0.5, spec=SPEC)
    results = tmp_path / "results.json"
    argv = [sys.executable, str(ROOT / "benchmarks" / "fault_campaign.py")]
    argv += ["--faults", "20", "--seed", "3", "--stop-periods", "100"]
    argv += ["--policy", str(tmp_path / "policies"), "--results", str(results)]
    done = subprocess.run(
        argv, env=processes.env, capture_output=True, text=True, timeout=2 * WAIT_S, check=False
    )
    assert results.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    faults = json.loads(results.read_text())
    assert len(faults) == 20
    assert {fault["robot"] for fault in faults} == {"real time", "simulated"}
    assert [fault for fault in faults if fault["wrong"]] == []
    assert done.returncode == 0
