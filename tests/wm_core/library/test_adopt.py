"""Networks of other trainers, exported here as those export them, become policies that obey."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from tests.wm_core.library.conftest import JOINTS, LIMIT, REST, SCALE, STEPS, answers, mlp, to_onnx
from wm_core.contract.errors import SettingsError
from wm_core.contract.runner import PolicyEngine
from wm_core.contract.spec import ActionSpec
from wm_core.library.adopt import adopt


class Memory(nn.Module):
    """An actor with two layers of LSTM, as rsl_rl exports it: one frame, batch of one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.head = nn.LSTM(8, 16, 2), nn.Linear(16, JOINTS)

    def forward(self, x, h, c):
        x, (h, c) = self.rnn(x.unsqueeze(0), (h, c))
        return self.head(x.squeeze(0)), h, c


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


def test_all_parts_of_a_step_may_stand_together_and_zeros_before_them(tmp_path):
    path = to_onnx(nn.Identity(), tmp_path / "n.onnx", torch.zeros(1, 4), ["obs"], ["actions"])
    parts = [{"name": "x", "size": 1}, {"name": "y", "size": 1}]
    obs = {"parts": parts, "history": 2, "begins": "zeros", "normalisation": "none"}
    action = {"scale": 1.0, "default": 0.0, "low": -100.0, "high": 100.0}
    said = {"period_s": 0.1, "inputs": {"obs": obs}, "action": action}
    engine = PolicyEngine(adopt(path, tmp_path / "policy", said), seed=0)
    told = []
    for t, first in ((1, True), (2, False), (9, True)):
        seen = {"x": np.array([t], np.float32), "y": np.array([-t], np.float32)}
        out = engine.act(seen, np.zeros(4, np.float32), first)
        told.append(out.command.round(3).tolist())
    assert told == [[0, 0, 1, -1], [1, -1, 2, -2], [0, 0, 9, -9]]


def test_a_network_that_is_told_where_an_episode_begins(tmp_path):
    """Recurrent policies of SB3 read it, and reset their state themselves."""

    class Counts(nn.Module):
        def forward(self, obs, start, count):
            count = count * (1.0 - start.unsqueeze(-1)) + 1.0
            return 0.1 * count + 0.0 * obs, count

    given = (torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1))
    names = ["obs", "episode_starts", "count"], ["actions", "next_count"]
    path = to_onnx(Counts(), tmp_path / "n.onnx", given, *names)
    said = {
        "period_s": 0.1,
        "inputs": {
            "obs": {"parts": [{"name": "x", "size": 1}], "normalisation": "none"},
            "episode_starts": {"episode_start": True, "normalisation": "none"},
        },
        "action": {"scale": 1.0, "default": 0.0, "low": 0.0, "high": 1.0},
    }
    engine = PolicyEngine(adopt(path, tmp_path / "policy", said), seed=0)
    x = {"x": np.zeros(1, np.float32)}
    told = [engine.act(x, np.zeros(1, np.float32), t == 3).command[0] for t in range(5)]
    np.testing.assert_allclose(told, [0.1, 0.2, 0.3, 0.1, 0.2], atol=1e-6)


def test_a_file_of_torch_s_newer_tracer_with_weights_beside_it_is_adopted(tmp_path):
    net = mlp(3, 2).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (torch.zeros(1, 3),), tmp_path / "n.onnx", dynamo=True, external_data=True,
            input_names=["obs"], output_names=["actions"], verbose=False,
        )  # fmt: skip
    part = [{"name": "x", "size": 3}]
    said = {
        "period_s": 0.1,
        "inputs": {"obs": {"parts": part, "normalisation": "none"}},
        "action": {"scale": 1.0, "default": 0.0, "low": -9.0, "high": 9.0},
    }
    runner = adopt(tmp_path / "n.onnx", tmp_path / "p", said)
    assert b"site-packages" not in (tmp_path / "p" / "policy.onnx").read_bytes()
    for obs, _ in observations(runner.spec):
        out = PolicyEngine(runner, seed=0).act(obs, np.zeros(2, np.float32))
        with torch.no_grad():
            wanted = net(torch.tensor(obs["x"])[None])[0].numpy()
        np.testing.assert_allclose(out.command, wanted, atol=1e-5)


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


class Levers(nn.Module):
    """Scores three choices and two, or tells the index of the best of each."""

    def __init__(self, index):
        super().__init__()
        torch.manual_seed(3)
        self.index, self.net = index, nn.Linear(4, 5)

    def forward(self, x):
        parts = self.net(x).split((3, 2), 1)
        return torch.stack([p.argmax(1) for p in parts], 1) if self.index else torch.cat(parts, 1)


@pytest.mark.parametrize("kind", ["logits", "index"])
def test_several_choices_at_once_are_each_one_hot(kind, tmp_path):
    net = Levers(kind == "index")
    path = to_onnx(net, tmp_path / "n.onnx", torch.zeros(1, 4), ["x"], ["y"], opset=17)
    said = {
        "period_s": 0.1,
        "inputs": {"x": {"parts": [{"name": "seen", "size": 4}], "normalisation": "none"}},
        "action": {"kind": kind, "groups": [3, 2], "noop": [1, 0]},
    }
    runner = adopt(path, tmp_path / "p", said)
    assert runner.spec.action == ActionSpec.several_choices((3, 2), noop=(1, 0))
    rng, chosen = np.random.default_rng(0), set()
    for _ in range(20):
        seen = rng.normal(size=4).astype(np.float32)
        out = PolicyEngine(runner, seed=0).act({"seen": seen}, np.zeros(5, np.float32))
        with torch.no_grad():
            told = net(torch.tensor(seen)[None])[0].numpy()
        want = told if kind == "index" else [told[:3].argmax(), told[3:].argmax()]
        np.testing.assert_array_equal(out.command, want)
        np.testing.assert_array_equal(out.action, runner.spec.action.from_physical(out.command))
        chosen.add(tuple(out.command))
    assert len(chosen) > 3


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ({"kind": "logits", "groups": [3, 3]}, r"expected 6 scores, of the groups \(3, 3\)"),
        ({"kind": "index", "groups": [3, 2]}, r"a number for each of the groups \(3, 2\)"),
        ({"kind": "logits", "groups": [4, 1]}, "groups: expected two or more"),
        (
            {"groups": [3, 2], "scale": 1.0, "default": 0.0, "low": -1.0, "high": 1.0},
            "groups: expected two or more .* got .* and continuous",
        ),
        ({"kind": "logits", "groups": [3, 2], "noop": [0, 2]}, "noop: expected a choice of each"),
        ({"kind": "logits", "noop": [0, 0]}, "noop: expected a choice of each"),
        ({"kind": "logits", "groups": [3, 2], "names": ["a"]}, "names: expected 5"),
    ],
)
def test_groups_that_are_not_those_of_the_network_are_refused(action, said, tmp_path):
    path = to_onnx(Levers(False), tmp_path / "n.onnx", torch.zeros(1, 4), ["x"], ["y"], opset=17)
    given = {
        "period_s": 0.1,
        "inputs": {"x": {"parts": [{"name": "seen", "size": 4}], "normalisation": "none"}},
        "action": action,
    }
    with pytest.raises(SettingsError, match=said):
        adopt(path, tmp_path / "p", given)


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
