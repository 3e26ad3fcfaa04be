"""What a network's file says of itself, what is asked for, and what is refused."""

from __future__ import annotations

import io

import onnx
import pytest
import torch
import yaml
from torch import nn

from tests.wm_core.library.conftest import REST, answers, to_onnx
from wm_core.cli.main import main
from wm_core.contract.conformance import check_policy
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.runner import PolicyRunner
from wm_core.library.adopt import adopt, answered, read_network, template, to_answers

# ------------------------------------------------------------------ what the file says itself


def test_names_and_postures_in_the_metadata_are_taken_over(walker, tmp_path):
    _, path = walker
    proto = onnx.load(path)
    onnx.helper.set_model_props(
        proto,
        {
            "joint_names": "a,b,c,d",
            "default_joint_pos": "0.1,-0.2,0.3,-0.4",
            "action_scale": "0.25,0.25,0.25,0.25",
            "observation_names": "base_ang_vel,joint_pos,actions",
        },
    )
    onnx.save(proto, tmp_path / "told.onnx")
    _, values = read_network(tmp_path / "told.onnx")
    parts = values["inputs"]["obs"]["parts"]
    assert [(p["name"], p["size"]) for p in parts] == [
        ("base_ang_vel", 3),
        ("joint_pos", 4),
        ("own_action", 4),
    ]
    assert parts[1]["default"] == REST
    assert values["action"]["scale"] == [0.25] * 4
    said = {
        "period_s": 0.02,
        "inputs": {"obs": {"normalisation": "inside"}},
        "action": {"low": -1.0, "high": 1.0},
    }
    assert adopt(tmp_path / "told.onnx", tmp_path / "p", said).spec.action.units == ("rad",) * 4


def test_what_the_file_does_not_say_is_asked_for(walker, tmp_path):
    _, path = walker
    _, values = read_network(path)
    text = template(values)
    assert "# period_s: seconds from one decision to the next" in text
    assert yaml.safe_load(text) == values
    told = {
        "period_s": "0.02",
        "inputs.obs.parts": "[{name: all, size: 11}]",
        "inputs.obs.normalisation": "none",
        "action.scale": "0.25",
        "action.default": "0.0",
        "action.low": "-1",
        "action.high": "[1, 1, 1, 2]",
    }
    asked = []

    def ask(text):
        asked.append(text.split(":")[0])
        return told[asked[-1]]

    found = to_answers(answered(values, ask), "it")
    assert asked == list(told)
    assert found.action.high == (1.0, 1.0, 1.0, 2.0)


def test_the_command_line_writes_a_template_and_takes_answers(
    walker, tmp_path, capsys, monkeypatch
):
    _, path = walker
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal
    assert main(["adopt", str(path), "--template", str(tmp_path / "answers.yaml")]) == 0
    assert "actions" in (tmp_path / "answers.yaml").read_text()
    assert main(["adopt", str(path), "--to", str(tmp_path / "p")]) == 2
    error = capsys.readouterr().err
    assert "does not say everything" in error
    assert "period_s: seconds" in error
    assert not (tmp_path / "p").exists()
    (tmp_path / "answers.yaml").write_text(yaml.safe_dump(answers()))
    given = ["--answers", str(tmp_path / "answers.yaml"), "--to", str(tmp_path / "p")]
    assert main(["adopt", str(path), *given]) == 0
    assert "reads gyro, position; commands a, b, c, d" in " ".join(capsys.readouterr().out.split())
    assert check_policy(tmp_path / "p").card.resize == {}


# ------------------------------------------------------------------ what does not fit


def changed(path, value):
    said = answers()
    *above, last = path
    place = said
    for key in above:
        place = place[key]
    place[last] = value
    return said


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("inputs", "obs", "parts", 0, "size"), 4, r"reads \(1, 11\) .* make 12"),
        (("inputs", "obs", "parts", 0, "history"), 2, r"make 14 .*gyro 3 x 2"),
        (("inputs", "obs", "parts", 1, "default"), [1.0, 2.0], "expected 1 number or 4, got 2"),
        (("inputs", "obs", "parts", 1, "name"), "gyro", "'gyro' is described twice"),
        (("inputs", "obs", "parts", 1, "name"), "prev_action", "names that a policy uses itself"),
        (("inputs", "obs", "normalisation"), "maybe", "'inside', 'none' or 'given'"),
        (("inputs", "obs", "normalisation"), "given", "mean and std: expected both"),
        (("inputs", "obs", "std"), [0.0], "std"),
        (("inputs", "ob"), {"parts": [], "normalisation": "none"}, "either parts or an image or"),
        (("action", "output"), "action", "did you mean 'actions'"),
        (("action", "low"), 2.0, "expected each low below its high"),
        (("action", "low"), [1.0, 2.0], "low: expected 1 number or 4, got 2"),
        (("action", "names"), ["a"], "expected 4 names or none"),
        (("action", "scale"), 0.0, "scale: expected numbers other than 0"),
        (("action", "max_rate"), -1.0, "max_rate: expected numbers above 0"),
        (("action", "kind"), "index", "names of its choices"),
        (("period_s",), 0.0, "period_s: Input should be greater than 0"),
        (("state",), [{"input": "h", "output": "actions"}], "unknown input of the network 'h'"),
        (("speed",), 3, "speed: Extra inputs are not permitted, got 3"),
    ],
)  # fmt: skip
def test_answers_that_do_not_fit_are_named(walker, tmp_path, path, value, message):
    with pytest.raises(SettingsError, match=message):
        adopt(walker[1], tmp_path / "p", changed(path, value))
    assert not (tmp_path / "p").exists()


def test_an_input_without_an_answer_is_named(tmp_path):
    class Two(nn.Module):
        def forward(self, a, b):
            return a + b

    zeros = torch.zeros(1, 2)
    path = to_onnx(Two(), tmp_path / "n.onnx", (zeros, zeros), ["a", "b"], ["actions"])
    network, _ = read_network(path)
    assert [*network.inputs] == ["a", "b"]
    said = {
        "period_s": 0.1,
        "inputs": {"a": {"parts": [{"name": "x", "size": 2}], "normalisation": "none"}},
        "action": {"scale": 1.0, "default": 0.0, "low": -1.0, "high": 1.0},
    }
    with pytest.raises(SettingsError, match=r"inputs\.b\.parts|inputs\.b\.normalisation"):
        adopt(path, tmp_path / "p", said)


GRAPHS = {
    "control flow": (
        'g (float[1,2] obs) => (float[1,2] actions) <bool yes = {1}>'
        "{ actions = If(yes) <then_branch = t () => (float[1,2] a) { a = Neg(obs) },"
        " else_branch = e () => (float[1,2] b) { b = Abs(obs) }> }",
        "expected no control flow",
    ),
    "an input of doubles": (
        "g (double[1,2] obs) => (double[1,2] actions) { actions = Neg(obs) }",
        "a type or rank that no policy has",
    ),
}  # fmt: skip


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_file_that_cannot_be_a_policy_is_refused(graph, tmp_path):
    text, message = GRAPHS[graph]
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    onnx.save(proto, tmp_path / "n.onnx")
    with pytest.raises(PolicyRefused, match=message):
        read_network(tmp_path / "n.onnx")


def test_foreign_operators_and_other_files_are_refused(tmp_path):
    text = "g (float[1,2] obs) => (float[1,2] actions) { actions = com.microsoft.Gelu(obs) }"
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> {text}'
    )
    onnx.save(proto, tmp_path / "n.onnx")
    with pytest.raises(PolicyRefused, match=r"operators of ai\.onnx, it has some of"):
        read_network(tmp_path / "n.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(PolicyRefused, match="expected an ONNX file"):
        read_network(tmp_path / "text.onnx")
    with pytest.raises(PolicyRefused, match="expected an ONNX file"):
        read_network(tmp_path / "missing.onnx")


def test_a_policy_of_this_project_is_told_apart(walker, tmp_path):
    adopt(walker[1], tmp_path / "p", answers())
    with pytest.raises(PolicyRefused, match="has a card"):
        read_network(tmp_path / "p" / "policy.onnx")


def test_a_network_that_answers_nan_is_refused(tmp_path):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.log(x - 1e9)

    path = to_onnx(Broken(), tmp_path / "n.onnx", torch.zeros(1, 2), ["obs"], ["actions"])
    said = {
        "period_s": 0.1,
        "inputs": {"obs": {"parts": [{"name": "x", "size": 2}], "normalisation": "none"}},
        "action": {"scale": 1.0, "default": 0.0, "low": -1.0, "high": 1.0},
    }
    with pytest.raises(PolicyRefused, match="NaN or infinity"):
        adopt(path, tmp_path / "p", said)
    assert not (tmp_path / "p").exists()


def test_a_network_that_draws_for_itself_is_refused_and_nothing_is_written(tmp_path):
    text = """<ir_version: 8, opset_import: ["": 18]> g (float[1,2] obs) => (float[1,2] actions)
    { noise = RandomNormalLike(obs)
      actions = Add(obs, noise) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "n.onnx")
    said = {
        "period_s": 0.1,
        "inputs": {"obs": {"parts": [{"name": "x", "size": 2}], "normalisation": "none"}},
        "action": {"scale": 1.0, "default": 0.0, "low": -1.0, "high": 1.0},
    }
    with pytest.raises(
        PolicyRefused, match=r"expected operators that compute .* 'RandomNormalLike'"
    ):
        adopt(tmp_path / "n.onnx", tmp_path / "p", said)
    assert not (tmp_path / "p").exists()


def test_the_adopted_file_keeps_its_proof(walker, tmp_path):
    adopt(walker[1], tmp_path, answers())
    golden = tmp_path / "policy.golden.npz"
    golden.write_bytes(golden.read_bytes()[:-1] + b"x")
    with pytest.raises(PolicyRefused, match="expected sha256"):
        PolicyRunner.load(tmp_path)
