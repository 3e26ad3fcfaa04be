"""Networks of other trainers, exported here as those export them, become policies that obey."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import nn

from wm_core.cli.main import main
from wm_core.contract.conformance import check_policy
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.library.adopt import adopt, answered, read_network, template, to_answers

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


class Memory(nn.Module):
    """An actor with two layers of LSTM, as rsl_rl exports it: one frame, batch of one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.head = nn.LSTM(8, 16, 2), nn.Linear(16, JOINTS)

    def forward(self, x, h, c):
        x, (h, c) = self.rnn(x.unsqueeze(0), (h, c))
        return self.head(x.squeeze(0)), h, c


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


def observations(spec, seed=0):
    """Random vectors, with an episode that begins at 0 and at 25."""
    rng = np.random.default_rng(seed)
    for t in range(STEPS):
        obs = {k: rng.normal(size=v.size).astype(np.float32) for k, v in spec.vectors.items()}
        yield obs, t in (0, 25)


def test_a_network_of_rsl_rl_commands_what_its_own_loop_would(walker, tmp_path):
    net, path = walker
    runner = adopt(path, tmp_path, answers())
    engine, sent, last = PolicyEngine(runner, seed=0), np.zeros(JOINTS, np.float32), None
    beyond = 0
    for obs, first in observations(runner.spec):
        out = engine.act(obs, sent, first)
        last = np.zeros(JOINTS, np.float32) if first else last
        given = np.concatenate([obs["gyro"] * 0.25, obs["position"] - np.float32(REST), last])
        with torch.no_grad():
            last = net(torch.tensor(given)[None])[0].numpy()
        wanted = np.float32(REST) + SCALE * last
        np.testing.assert_allclose(out.command, np.clip(wanted, -LIMIT, LIMIT), atol=1e-5)
        beyond += int((np.abs(wanted) > LIMIT).any())
        sent = out.action
    assert 0 < beyond < STEPS  # the limits were met, and not always
    assert runner.card.preset == "rsl_rl"
    assert runner.spec.vectors["position"].names == ("a", "b", "c", "d")
    assert runner.spec.period_s == 0.02


def test_the_slew_limit_holds_and_the_own_action_may_be_what_was_sent(walker, tmp_path):
    net, path = walker
    said = answers(own_action="sent")
    said["action"]["max_rate"] = 5.0  # 0.1 per step of 0.02 s
    runner = adopt(path, tmp_path, said)
    engine, sent = PolicyEngine(runner, seed=0), np.zeros(JOINTS, np.float32)
    command = np.zeros(JOINTS)
    for obs, first in observations(runner.spec):
        out = engine.act(obs, sent, first)
        last = np.zeros(JOINTS) if first else (command - np.float32(REST)) / SCALE
        given = np.concatenate([obs["gyro"] * 0.25, obs["position"] - np.float32(REST), last])
        with torch.no_grad():
            raw = net(torch.tensor(given, dtype=torch.float32)[None])[0].numpy()
        wanted = np.clip(np.float32(REST) + SCALE * raw, command - 0.1, command + 0.1)
        np.testing.assert_allclose(out.command, np.clip(wanted, -LIMIT, LIMIT), atol=1e-4)
        sent, command = out.action, out.command


def test_a_network_with_a_memory_keeps_it_and_forgets_it(tmp_path):
    net, zeros = Memory(), torch.zeros(2, 1, 16)
    names = (["obs", "h_in", "c_in"], ["actions", "h_out", "c_out"])
    path = to_onnx(net, tmp_path / "lstm.onnx", (torch.zeros(1, 8), zeros, zeros), *names)
    parts = [{"name": "sensed", "size": 8}]
    said = answers(inputs={"obs": {"parts": parts, "normalisation": "none"}})
    runner = adopt(path, tmp_path / "policy", said)
    assert {pair.input for pair in runner.card.carry} == {"state_h_in", "state_c_in"}
    engine, sent = PolicyEngine(runner, seed=0), np.zeros(JOINTS, np.float32)
    h = c = zeros
    for obs, first in observations(runner.spec):
        out = engine.act(obs, sent, first)
        h, c = (zeros, zeros) if first else (h, c)
        with torch.no_grad():
            raw, h, c = net(torch.tensor(obs["sensed"])[None], h, c)
        wanted = np.clip(np.float32(REST) + SCALE * raw[0].numpy(), -LIMIT, LIMIT)
        np.testing.assert_allclose(out.command, wanted, atol=1e-5)
        sent = out.action


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_history_is_filled_by_the_first_observation(newest_first, tmp_path):
    """A network that answers its whole input, so that it can be read off."""
    path = to_onnx(nn.Identity(), tmp_path / "n.onnx", torch.zeros(1, 6), ["obs"], ["actions"])
    part = {"name": "x", "size": 2, "history": 3, "newest_first": newest_first}
    runner = adopt(
        path,
        tmp_path / "policy",
        {
            "period_s": 0.1,
            "inputs": {"obs": {"parts": [part], "normalisation": "none"}},
            "action": {"scale": 1.0, "default": 0.0, "low": -100.0, "high": 100.0},
        },
    )
    engine, sent, told = PolicyEngine(runner, seed=0), np.zeros(6, np.float32), []
    for t, first in ((1, True), (2, False), (3, False), (4, False), (9, True)):
        out = engine.act({"x": np.array([t, -t], np.float32)}, sent, first)
        rows = out.command.reshape(3, 2)[:, 0].round(3).tolist()
        told.append(rows[::-1] if newest_first else rows)
    assert told == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [2, 3, 4], [9, 9, 9]]


def test_normalisation_and_squashing_that_the_file_lacks_are_added(tmp_path):
    net = mlp(3, 2)
    path = to_onnx(net, tmp_path / "n.onnx", torch.zeros(1, 3), ["input"], ["mean"], batch=True)
    mean, std = [1.0, 2.0, 3.0], [2.0, 4.0, 8.0]
    part = [{"name": "x", "size": 3}]
    given = {"parts": part, "normalisation": "given", "mean": mean, "std": std, "clip": 1.5}
    action = {"squash": "tanh", "scale": 2.0, "default": 1.0, "low": -1.0, "high": 3.0}
    runner = adopt(
        path, tmp_path / "p", {"period_s": 0.1, "inputs": {"input": given}, "action": action}
    )
    for obs, _ in observations(runner.spec):
        out = PolicyEngine(runner, seed=0).act(obs, np.zeros(2, np.float32))
        x = np.clip((obs["x"] - np.float32(mean)) / np.float32(std), -1.5, 1.5)
        with torch.no_grad():
            wanted = 1.0 + 2.0 * torch.tanh(net(torch.tensor(x)[None]))[0].numpy()
        np.testing.assert_allclose(out.command, wanted, atol=1e-5)


class Chooser(nn.Module):
    """Sees a picture as SB3's CNN policies do, channels first, and scores three choices."""

    def __init__(self, index):
        super().__init__()
        torch.manual_seed(3)
        self.index = index
        self.net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

    def forward(self, x):
        scores = self.net(x.float() / 255.0)
        return scores.argmax(1) if self.index else scores


@pytest.mark.parametrize("kind", ["logits", "index"])
def test_a_choice_from_a_picture_is_one_hot(kind, tmp_path):
    net = Chooser(kind == "index")
    shown = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    path = to_onnx(net, tmp_path / "n.onnx", shown, ["input"], ["output"], opset=17, batch=True)
    said = {
        "period_s": 0.1,
        "inputs": {"input": {"image": {"layout": "NCHW"}, "normalisation": "inside"}},
        "action": {"kind": kind, "names": ["left", "stop", "right"], "noop": 1},
    }
    runner = adopt(path, tmp_path / "p", said)
    assert runner.spec.action.names == ("left", "stop", "right")
    rng, chosen = np.random.default_rng(0), set()
    for _ in range(20):
        image = (rng.random((16, 16, 3)) * rng.integers(1, 256, 3)).astype(np.uint8)
        out = PolicyEngine(runner, seed=0).act({"image": image}, np.zeros(3, np.float32))
        with torch.no_grad():
            told = net(torch.tensor(image.transpose(2, 0, 1)[None].copy()))
        want = int(told[0]) if kind == "index" else int(told.argmax())
        assert out.command[0] == want
        assert out.action[want] == 1.0
        chosen.add(want)
    assert len(chosen) > 1


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
        (("inputs", "ob"), {"parts": [], "normalisation": "none"}, "either parts or an image"),
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


def test_the_adopted_file_keeps_its_proof(walker, tmp_path):
    adopt(walker[1], tmp_path, answers())
    golden = tmp_path / "policy.golden.npz"
    golden.write_bytes(golden.read_bytes()[:-1] + b"x")
    with pytest.raises(PolicyRefused, match="expected sha256"):
        PolicyRunner.load(tmp_path)
