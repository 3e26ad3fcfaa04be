"""Networks as other trainers export them, and answers to what their files do not say."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from wm_core.training.status import Status

JOINTS = 4
REST = [0.1, -0.2, 0.3, -0.4]
SCALE = 0.25
LIMIT = 0.42
STEPS = 40


def to_onnx(module, path, arguments, inputs, outputs, *, opset=18, batch=False):
    """Export as trainers do: by torch's older tracer, in evaluation mode."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is the older one, and of its LSTM
        torch.onnx.export(
            module.eval(),
            arguments,
            path,
            dynamo=False,
            opset_version=opset,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={inputs[0]: {0: "batch"}, outputs[0]: {0: "batch"}} if batch else None,
        )
    return path


def mlp(inputs, outputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 32), nn.ELU(), nn.Linear(32, outputs))


def answers(**changes):
    """What a rsl_rl file of a legged robot does not say."""
    parts = [
        {"name": "gyro", "size": 3, "scale": 0.25},
        {"name": "position", "size": JOINTS, "default": REST, "names": list("abcd")},
        {"name": "own_action", "size": JOINTS},
    ]
    return {
        "period_s": 0.02,
        "inputs": {"obs": {"parts": parts, "normalisation": "inside"}},
        "action": {
            "scale": SCALE,
            "default": REST,
            "low": -LIMIT,
            "high": LIMIT,
            "names": list("abcd"),
            "units": ["rad"] * JOINTS,
        },
    } | changes


@pytest.fixture(scope="module")
def walker(tmp_path_factory):
    """An actor of eleven numbers, with its network in torch."""
    net = mlp(3 + 2 * JOINTS, JOINTS)
    path = tmp_path_factory.mktemp("walker") / "policy.onnx"
    return net, to_onnx(net, path, torch.zeros(1, 11), ["obs"], ["actions"], opset=11)


@pytest.fixture(scope="session")
def make_status():
    """Makes the status of a run that has ended, with changes."""

    def make(**changes):
        values = {
            "phase": "done",
            "updates": 100,
            "updates_goal": None,
            "updates_per_s": 1.0,
            "agent_steps": 2000,
            "agent_steps_goal": 2000,
            "agent_steps_per_s": 10.0,
            "published_version": 2,
            "episodes": 7,
            "last_return": 1.25,
            "time": 1_700_000_600.0,
            "cpu_s": 1800.5,
        }
        return Status(**values | changes)

    return make
