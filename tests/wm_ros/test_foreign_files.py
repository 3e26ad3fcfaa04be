"""Policies of other trainers and of reduced precision on a robot, over real topics."""

from __future__ import annotations

import hashlib
import io
import warnings

import numpy as np
import pytest

from tests.wm_ros.conftest import PERIOD_S, steps_in
from wm_core.contract.card import CARD_KEY, PolicyCard, Tolerance, blob_of
from wm_core.contract.golden import read_golden
from wm_core.contract.policy_folder import PolicyFolder

pytestmark = pytest.mark.ros

COUNTING = {"task": "counting_task:Counting-v0"}
SIZES = {"forward": (-0.5, 1.0), "turn": (-2.0, 2.0)}


@pytest.fixture
def drive(processes, watcher, report_of, tmp_path):
    """Starts both nodes with a folder of policies, until the status says what is wanted."""
    state = tmp_path / "state"

    def run(until, what, **params):
        processes.start("sim_node", COUNTING)
        params = {"policy_dir": str(tmp_path / "policies"), "state_dir": str(state), **params}
        processes.start("policy_node", params)
        watcher.until(lambda: until(report_of(state / "status.json")), what)
        processes.stop("policy_node")
        processes.stop("sim_node")
        return steps_in(state / "spool"), report_of(state / "status.json")

    return run


@pytest.fixture
def network():
    """An actor as SB3 has them for pictures: channels first, pixels of 0 .. 1, two numbers."""
    torch = pytest.importorskip("torch", reason="needs torch to make a network")
    torch.manual_seed(4)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 8, 8), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 2)
    ).eval()


def test_an_adopted_network_drives_the_robot_as_its_trainer_meant(drive, network, tmp_path):
    import torch

    from wm_core.library.adopt import adopt

    path = tmp_path / "sb3.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch has a newer tracer
        torch.onnx.export(
            network, torch.zeros(1, 3, 32, 32), path, dynamo=False, input_names=["input"],
            output_names=["actions"], dynamic_axes={"input": {0: "n"}, "actions": {0: "n"}},
        )  # fmt: skip
    low, high = zip(*SIZES.values(), strict=True)
    picture = {"name": "image", "layout": "NCHW", "scale": 1 / 255}
    answers = {
        "period_s": PERIOD_S,
        "inputs": {"input": {"image": picture, "normalisation": "none"}},
        "action": {"scale": 2.0, "default": 0.25, "low": low, "high": high, "names": [*SIZES]},
    }
    adopt(path, tmp_path / "policies", answers)
    steps, status = drive(lambda s: s.get("steps_recorded", 0) >= 120, "120 steps")
    assert status["policy_version"] == 1
    acted = [step for step in steps if step.policy_version == 1 and not step.is_first]
    assert len(acted) > 15  # on a busy machine many begin an episode anew
    span = np.subtract(high, low)
    for step in acted:
        with torch.no_grad():
            seen = torch.tensor(step.obs["image"].transpose(2, 0, 1)[None] / np.float32(255))
            wanted = np.clip(0.25 + 2.0 * network(seen)[0].numpy(), low, high)
        command = low + (step.requested_action + 1) / 2 * span
        np.testing.assert_allclose(command, wanted, atol=1e-4)


def in_eight_bits(folder, off, tolerance):
    """Let the policy in ``folder`` say that it is quantised, and be ``off`` from its rollout."""
    import onnx

    place = PolicyFolder(folder)
    arrays = read_golden((folder / "policy.golden.npz").read_bytes())
    arrays["out/memory_next"] = arrays["out/memory_next"] * np.float32(1 + off)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    golden = buffer.getvalue()
    proto = onnx.load(place.onnx)
    eight_bits = ["memory_8", "memory_scale", "memory_zero"]
    proto.graph.node.append(
        onnx.helper.make_node("DynamicQuantizeLinear", ["memory"], eight_bits, name="quantize")
    )
    card = PolicyCard.parse(proto.metadata_props[0].value).model_copy(
        update={
            "quantized": "int8",
            "tolerance": Tolerance(largest=tolerance, mean=tolerance),
            "golden_sha256": hashlib.sha256(golden).hexdigest(),
        }
    )
    onnx.helper.set_model_props(proto, {CARD_KEY: card.model_dump_json()})
    data = proto.SerializeToString()
    manifest = place.read_manifest().model_copy(
        update={
            "policy": blob_of("policy.onnx", data),
            "golden": blob_of("policy.golden.npz", golden),
        }
    )
    place.onnx.write_bytes(data)
    (folder / "policy.golden.npz").write_bytes(golden)
    place.manifest.write_text(manifest.model_dump_json())


@pytest.mark.parametrize(("owner", "runs"), [({}, 2), ({"max_tolerance": 0.01}, 0)])
def test_the_owner_bounds_the_deviation_that_an_eight_bit_policy_asks_for(
    drive, policy_at, tmp_path, owner, runs
):
    """Version 1 asks for more than any robot accepts by itself, version 2 for five hundredths."""
    policies = tmp_path / "policies"
    for version, off, tolerance in ((0, 0.0, None), (1, 0.4, 9.0), (2, 0.02, 0.05)):
        folder = policy_at(policies / f"{version:08d}", version=version, bias=0.1 * version)
        if tolerance is not None:
            in_eight_bits(folder, off, tolerance)
    refused = 2 if owner else 0
    _, status = drive(
        lambda s: (
            s.get("policy_version") == runs
            and s.get("policies_refused", 0) >= refused
            and s.get("steps_recorded", 0) >= 5
        ),
        f"version {runs}",
        **owner,
    )
    assert status["policy_version"] == runs
    if owner:
        assert any("of this int8 policy" in text for text in status["refusals"])
        assert any("at most 1e-02 is accepted" in text for text in status["refusals"])
