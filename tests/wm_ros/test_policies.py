"""Policies that come slowly, broken, or to the wrong place; and the way back to the one before."""

from __future__ import annotations

import hashlib
import json
import os
import signal

import numpy as np
import pytest

from tests.wm_ros.tiny_policy import tiny_spec

pytestmark = pytest.mark.ros

FILES = ("policy.manifest.json", "policy.onnx", "policy.golden.npz")


@pytest.fixture
def node(processes, watcher, played, tmp_path, report_of):
    """A policy node without rewards before a camera of noise; and what one sees of it."""
    from diagnostic_msgs.msg import DiagnosticArray
    from geometry_msgs.msg import TwistStamped

    class Node:
        commands = watcher.listen(TwistStamped, "cmd_vel")
        heard = watcher.listen(DiagnosticArray, "/diagnostics")
        state = tmp_path / "state"

        def start(self, policy_dir, **params):
            given = {"policy_dir": str(policy_dir), "state_dir": str(self.state), **params}
            processes.start(
                "policy_node", {"reward_required": False, "policy_poll_s": 0.05, **given}
            )

        def status(self) -> dict:
            return report_of(self.state / "status.json")

        def diagnosis(self) -> str:
            found = [s for m in self.heard for s in m.status if s.name.endswith(": policy")]
            return found[-1].message if found else ""

        def runs(self, version: int, speed: float) -> None:
            watcher.until(
                lambda: (
                    self.status().get("policy_version") == version
                    and len(self.commands) > 3
                    and all(abs(m.twist.linear.x - speed) < 1e-4 for m in self.commands[-3:])
                ),
                f"version {version}, which drives at {speed}",
            )

    return Node()


def speed(bias: float) -> float:
    """The tiny policy's command for its action ``bias``: -0.5 .. 1 m/s."""
    return -0.5 + (bias + 1.0) * 0.75


def test_a_policy_arrives_slowly_a_broken_one_is_passed_over_and_one_goes_back(
    watcher, node, played, policy_at, damaged, tmp_path, processes
):
    home, store = tmp_path / "robot" / "policies", tmp_path / "store"
    home.parent.mkdir()
    for version in (1, 2):
        policy_at(store / f"{version:08d}", version=version, bias=version / 4)
    node.start(home, trial_s=600.0)
    # a folder that does not exist: named in full, with the nearest that does
    watcher.until(lambda: f"{home} does not exist" in node.diagnosis(), "the folder's name")
    assert f"{home.parent} does and holds nothing" in node.diagnosis()
    assert f"no policy: policy_dir {home} does not exist" in processes.said("policy_node")

    # a copy that grows: first the manifest, then half of the policy, then all of it
    whole, part = store / "00000001", home / "00000001"
    part.mkdir(parents=True)
    (part / FILES[0]).write_bytes((whole / FILES[0]).read_bytes())
    data = (whole / FILES[1]).read_bytes()
    (part / FILES[1]).write_bytes(data[:500])
    watcher.until(lambda: "still being copied, 500 of" in node.diagnosis(), "the bytes so far")
    watcher.until(
        lambda: "still being copied" in node.status()["policy_problem"], "the same in the status"
    )
    (part / FILES[1]).write_bytes(data)
    (part / FILES[2]).write_bytes((whole / FILES[2]).read_bytes())
    node.runs(1, speed(0.25))
    assert node.status()["policies_refused"] == 0

    # a good one and a broken newer one: the good one runs, the other is named
    damaged(whole, home / "00000003")
    policy_at(home / "00000002", version=2, bias=0.5)
    node.runs(2, speed(0.5))
    watcher.until(lambda: "00000003 refused" in processes.said("policy_node"), "a refusal")
    watcher.until(
        lambda: "expected sha256" in node.status()["policy_problem"], "the same in the status"
    )

    # back to the one before, and never again to the other
    answer = played.trigger("rollback")
    assert (answer.success, "version 2 is rolled back to 1" in answer.message) == (True, True)
    node.runs(1, speed(0.25))
    played.settle(node.commands, 25)
    node.runs(1, speed(0.25))
    answer = played.trigger("rollback")
    assert (answer.success, "nothing to go back to" in answer.message) == (False, True)

    # one that fails on what it sees: the one before comes back by itself
    policy_at(home / "00000004", version=4, bias=-0.25, breaks_at=250)
    node.runs(4, speed(-0.25))
    played.picture = lambda: np.full((32, 32, 3), 255, np.uint8)
    node.runs(1, speed(0.25))
    watcher.until(lambda: node.status()["rollbacks"] == 2, "two rollbacks in the status")
    policy_at(home / "00000005", version=5, bias=0.75)
    node.runs(5, speed(0.75))
    assert processes.stop("policy_node", signal.SIGTERM) == 0
    lines = (node.state / "swaps.jsonl").read_text().splitlines()
    swaps = [(line["version"], line["mode"] == "rollback") for line in map(json.loads, lines)]
    back = True
    assert swaps == [(1, False), (2, False), (1, back), (4, False), (1, back), (5, False)]


def test_an_older_policy_runs_from_the_start_where_the_newest_is_broken(
    node, policy_at, damaged, tmp_path, processes
):
    home = tmp_path / "policies"
    policy_at(home / "00000001", version=1, bias=0.25)
    damaged(home / "00000001", home / "00000002")
    node.start(home)
    node.runs(1, speed(0.25))
    assert "00000002 refused: policy.onnx: expected sha256" in processes.said("policy_node")


@pytest.mark.parametrize("delay_s", [0.0, 0.7])
def test_the_node_ends_in_order_while_it_proves_a_policy_for_long(
    node, watcher, policy_at, tmp_path, processes, delay_s
):
    home = tmp_path / "policies"
    policy_at(home / "00000001", version=1, bias=0.25)
    node.start(home)
    node.runs(1, speed(0.25))
    policy_at(home / "00000002", version=2, bias=0.5, golden_steps=20_000)
    end = watcher.node.get_clock().now().nanoseconds + int(delay_s * 1e9)
    watcher.until(lambda: watcher.node.get_clock().now().nanoseconds >= end, "a moment")
    assert processes.stop("policy_node", signal.SIGTERM) == 0
    watcher.until(lambda: node.commands[-1].twist.linear.x == 0.0, "a last zero")


def spelling(folder):
    """Make the policy in ``folder`` read another file of the robot, with every hash right."""
    import onnx

    path = folder / "policy.onnx"
    model = onnx.load(path)
    secret = onnx.TensorProto(name="secret", data_type=2, dims=[40], data_location=1)
    secret.external_data.add(key="location", value="/etc/passwd")
    at = onnx.numpy_helper.from_array(np.arange(40), "at")
    sparse = onnx.SparseTensorProto(values=secret, indices=at, dims=[40])
    node = onnx.helper.make_node("Constant", [], ["letters"])
    node.attribute.append(onnx.helper.make_attribute("sparse_value", sparse))
    model.graph.node.insert(0, node)
    data = model.SerializeToString()
    path.write_bytes(data)
    told = json.loads((folder / FILES[0]).read_text())
    told["policy"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / FILES[0]).write_text(json.dumps(told))


def test_the_robot_drives_on_whatever_is_put_into_its_folder_of_policies(
    node, played, watcher, policy_at, tmp_path, processes
):
    """A spy, one that is too slow, a pipe and a card of absurd steps; then a good one comes."""
    home, made = tmp_path / "policies", tmp_path / "made"
    policy_at(home / "00000001", version=1, bias=0.25)
    node.start(home)
    node.runs(1, speed(0.25))
    spelling(policy_at(made / "2", version=2, bias=0.5))
    policy_at(made / "3", version=3, bias=0.5, products=12)
    piped = policy_at(made / "4", version=4, bias=0.5)
    (piped / FILES[0]).unlink()
    os.mkfifo(piped / FILES[0])
    policy_at(made / "5", version=5, spec=tiny_spec(period_s=3000.0))
    for version in (2, 3, 4, 5):
        (made / str(version)).rename(home / f"{version:08d}")
    said = {
        2: "expected dense weights, it has sparse ones",
        3: "ms of processor time, at most 40 ms are allowed",
        4: "it is no plain file",
        5: "expected a policy of 0.001 to 10 s a step",
    }
    for version, text in said.items():
        watcher.until(
            lambda v=version, t=text: any(
                f"{v:08d} refused" in line and t in line
                for line in processes.said("policy_node").splitlines()
            ),
            f"why version {version} is refused",
        )
    node.runs(1, speed(0.25))
    policy_at(home / "00000006", version=6, bias=0.75)
    node.runs(6, speed(0.75))
    assert node.status()["rollbacks"] == 0
