"""LEAPP bundles: ours run in LEAPP's own reader, and what LEAPP exports becomes a policy."""

from __future__ import annotations

import contextlib
import io
import json
import warnings

import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml
from torch import nn

from wm_core.contract.conformance import check_policy
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.golden import read_golden, rollout
from wm_core.contract.policy_folder import ONNX_NAME
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.exporting.leapp import read_safetensors, write_bundle
from wm_core.exporting.leapp import safetensors as encoded
from wm_core.exporting.network import Network
from wm_core.library.adopt import adopt, read_network

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def leapp():
    """LEAPP, imported once; it prints while it works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import leapp
    return leapp


@pytest.fixture
def bundle(folder):
    write_bundle(folder, ONNX_NAME, PolicyRunner.load(folder).card)
    return folder / "policy.yaml"


def test_a_recurrent_policy_of_ours_runs_in_their_own_reader(leapp, bundle, folder):
    """Over 40 steps with resets, each side with the memory that it keeps itself."""
    theirs = leapp.InferenceManager(str(bundle))
    ours = PolicyRunner.load(folder)
    assert sorted(theirs.feedback_inputs) == ["policy/deter", "policy/stoch"]
    golden = read_golden((folder / "policy.golden.npz").read_bytes())
    carry = ours.initial_carry()
    for feed, _ in rollout(golden, ours.card):
        external = {name: value for name, value in feed.items() if name not in carry}
        want = ours.call(external | carry)
        carry = {pair.input: want[pair.output] for pair in ours.card.carry}
        got = theirs({f"policy/{n}": torch.from_numpy(v.copy()) for n, v in external.items()})
        for name in ("action", "command", "value", "surprise"):
            told = got[f"policy/{name}"].numpy()
            np.testing.assert_allclose(told, want[name], rtol=1e-4, atol=1e-4)


def test_the_bundle_says_rate_names_limits_and_meaning(bundle, spec):
    found = yaml.safe_load(bundle.read_text())
    assert found["pipeline"]["configs"]["frequency"] == pytest.approx(20.0)
    (model,) = found["models"].values()
    by_name = {t["name"]: t for t in [*model["inputs"], *model["outputs"]]}
    assert by_name["command"]["low"] == [-0.5, -400.0]
    assert by_name["is_first"]["meaning"].startswith("forget the carry")
    assert by_name["image"]["dtype"] == "uint8"


def test_the_policy_beside_a_bundle_stays_a_policy(bundle, folder):
    check_policy(folder)
    with pytest.raises(PolicyRefused, match="has a card"):
        read_network(bundle)


def test_both_know_the_same_safetensors(tmp_path):
    arrays = {"node/h": np.arange(6, dtype=np.float32).reshape(1, 2, 3), "x": np.zeros(1, "f4")}
    theirs = safetensors.numpy.load(encoded(arrays))
    (tmp_path / "a").write_bytes(safetensors.numpy.save(arrays))
    for found in (theirs, read_safetensors(tmp_path / "a")):
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 40,
        (2).to_bytes(8, "little") + b"[]",
        (60).to_bytes(8, "little")
        + b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
    ],
    ids=["empty", "noise", "no table", "cut off"],
)
def test_damaged_safetensors_are_refused(data, tmp_path):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(PolicyRefused, match="expected safetensors"):
        read_safetensors(tmp_path / "a")


# ------------------------------------------------------------------ what LEAPP exports


class Walker(nn.Module):
    """A GRU that moves four joints; its command is a position in radians."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.head = nn.GRUCell(7, 16), nn.Linear(16, 4)

    def forward(self, joints, gyro, hidden):
        hidden = self.gru(torch.cat([joints, gyro], -1), hidden)
        return 0.5 * torch.tanh(self.head(hidden)), hidden


@pytest.fixture(scope="module")
def exported(leapp, tmp_path_factory):
    """The walker in torch, and the bundle that LEAPP makes of it."""
    root, net, names = tmp_path_factory.mktemp("leapp"), Walker().eval(), list("abcd")
    named, kinds = leapp.TensorSemantics, leapp.OutputKindEnum
    with (
        warnings.catch_warnings(),
        torch.no_grad(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        leapp.start("walker", save_path=str(root))
        joints, gyro = leapp.annotate.input_tensors(
            "actor",
            [
                named(name="joints", ref=torch.zeros(1, 4), element_names=[None, names]),
                named(name="gyro", ref=torch.zeros(1, 3)),
            ],
        )
        hidden = leapp.annotate.state_tensors("actor", {"hidden": torch.full((1, 16), 0.25)})
        command, after = net(joints, gyro, hidden)
        leapp.annotate.update_state("actor", {"hidden": after})
        target = named(
            name="target", ref=command, kind=kinds.JOINT_POSITION, element_names=[None, names]
        )
        leapp.annotate.output_tensors("actor", [target], export_with="onnx")
        leapp.stop()
        rate = leapp.GraphConfigs(frequency=50.0)
        leapp.compile_graph(visualize=False, graph_configs=rate)
    return net, root / "walker" / "walker.yaml"


def test_what_leapp_exports_becomes_a_policy_by_its_limits_alone(exported, tmp_path):
    net, path = exported
    runner = adopt(path, tmp_path / "p", {"action": {"low": -0.4, "high": 0.4}})
    card = runner.card
    assert (card.preset, card.spec.period_s) == ("leapp", 0.02)
    assert card.spec.action.names == ("a", "b", "c", "d")
    assert card.spec.action.units == ("rad",) * 4
    assert card.spec.vectors["joints"].names == ("a", "b", "c", "d")
    engine, sent = PolicyEngine(runner, seed=0), np.zeros(4, np.float32)
    rng, hidden = np.random.default_rng(0), None
    for t in range(30):
        obs = {k: rng.normal(size=v.size).astype("f4") for k, v in card.spec.vectors.items()}
        first = t in (0, 20)
        out = engine.act(obs, sent, first)
        hidden = torch.full((1, 16), 0.25) if first else hidden  # as the bundle begins
        with torch.no_grad():
            want, hidden = net(*(torch.tensor(obs[k])[None] for k in ("joints", "gyro")), hidden)
        np.testing.assert_allclose(out.command, want[0].clip(-0.4, 0.4), atol=1e-5)
        sent = out.action


def edited(path, tmp_path, change):
    """A copy of the bundle whose YAML ``change`` has edited."""
    for file in path.parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = yaml.safe_load(path.read_text())
    change(found, found["models"]["actor"]["parameters"])
    (tmp_path / path.name).write_text(json.dumps(found))
    return tmp_path / path.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f, p: f["models"].update(other=f["models"]["actor"]),
            "expected one model.* has 2",
        ),
        (lambda f, p: p.update(backend="jit"), "expected a model in ONNX, it is 'jit'"),
        (lambda f, p: p.update(sha256sum="0" * 64), "expected sha256 0{64}"),
        (lambda f, p: p.update(model_path="../actor.onnx"), "expected a file beside it"),
        (lambda f, p: p.update(model_path="none.onnx"), "no such file"),
        (lambda f, p: f.pop("pipeline"), "expected a LEAPP bundle with models"),
        (lambda f, p: p.pop("backend"), "KeyError"),
        (lambda f, p: f["pipeline"].update(initial_values="none"), "expected safetensors"),
        (lambda f, p: f["pipeline"]["configs"].update(frequency="fast"), "could not convert"),
    ],
)
def test_a_bundle_that_cannot_be_a_policy_is_refused(exported, tmp_path, change, message):
    with pytest.raises(PolicyRefused, match=message):
        Network.load(edited(exported[1], tmp_path, change))
