"""Numbers that are not finite: stopped where they enter, counted, shown, and named at the end."""

from __future__ import annotations

import json
import math
import textwrap

import numpy as np
import pytest
import torch

from wm_core.agents.agent import AgentCore
from wm_core.cli.main import main
from wm_core.contract.spec import ActionSpec
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training import checkpoint
from wm_core.training.soundness import UsableSenses, sendable

ENV = '''
"""A point whose sensor, reward or both fail at the steps that its class says."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Point(gymnasium.Env):
    metadata = {"render_fps": 10, "render_modes": []}
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    bad_obs, bad_reward, every = None, None, 40
    received = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {}

    def step(self, action):
        type(self).received.append(np.array(action))
        self.t += 1
        type(self).count = getattr(type(self), "count", 0) + 1
        bad = type(self).count % self.every == 0
        reward = self.bad_reward if bad and self.bad_reward is not None else 1.0
        return self._obs(bad), reward, False, self.t >= 15, {}

    def _obs(self, bad=False):
        obs = np.full(3, 0.1 * self.t, np.float32)
        if bad and self.bad_obs is not None:
            obs[1] = self.bad_obs
        return obs


def fault(name, **values):
    made = type(name, (Point,), values | {"received": []})
    globals()[name] = made
    gymnasium.register(f"Wm{name}-v0", made)


fault("NanObs", bad_obs=np.nan)
fault("InfObs", bad_obs=np.inf)
fault("NanReward", bad_reward=np.nan)
fault("HugeReward", bad_reward=1e39)
fault("AlwaysNan", bad_obs=np.nan, every=1)
fault("AlwaysHuge", bad_reward=1e39, every=1)
fault("OftenNan", bad_obs=np.nan, every=5)
'''

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")]
GAUSSIAN = ("--preset", "dreamer_v1")


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """The module of the faulty tasks, importable in this process."""
    import importlib
    import sys

    (tmp_path / "wm_faulty.py").write_text(textwrap.dedent(ENV))
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("wm_faulty", None)
    return importlib.import_module("wm_faulty")


def train(name, run, tiny, *more):
    """The exit status of ``wm train`` on a faulty task, without export."""
    task = ("--task", f"wm_faulty:Wm{name}-v0", "--run", str(run), "--no-publish")
    return main(["train", *task, *tiny, *more])


def strict(text):
    """JSON as a strict parser reads it."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def status(run):
    return strict((run / "status.json").read_text())


def longest_valid_after(run, first_bad):
    """Longest run of valid steps in the store of ``run``."""
    store = Store(run / "store", cache_bytes=0)
    store.refresh()
    longest = max(s.length for s in store.segments)
    store.close()
    return longest


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("NanObs", "observation"),
        ("InfObs", "observation"),
        ("NanReward", "reward"),
        ("HugeReward", "reward"),
    ],
)
def test_one_bad_number_costs_one_step_and_is_counted_and_shown(
    name, reason, faulty, tiny, tmp_path, capsys, caplog
):
    run = tmp_path / "run"
    steps = ("--train.steps", "192", "--train.replay-ratio", "2")
    assert train(name, run, tiny, *GAUSSIAN, *steps) == 0
    said = status(run)
    assert said["phase"] == "done"
    bad = len(getattr(faulty, name).received) // 40
    assert 0 < said["invalid_steps"][reason] <= bad
    assert set(said["invalid_steps"]) == {reason}
    sent = np.array(getattr(faulty, name).received)
    assert np.isfinite(sent).all()
    assert math.isfinite(said["last_return"])
    assert "not learnt from" in caplog.text
    for line in (run / "metrics.jsonl").read_text().splitlines():
        strict(line)
    capsys.readouterr()
    assert main(["info", str(run), "--json"]) == 0
    assert strict(capsys.readouterr().out)["invalid_steps"] == said["invalid_steps"]
    assert main(["info", str(run / "store"), "--json"]) == 0
    assert strict(capsys.readouterr().out)["invalid_steps"] == said["invalid_steps"]


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("AlwaysNan", "observation 'vector'"),
        ("AlwaysHuge", "reward"),
        ("OftenNan", "observation 'vector'"),
    ],
)
def test_a_run_that_can_learn_from_nothing_ends_and_names_the_input(
    name, named, faulty, tiny, tmp_path, capsys
):
    patience = ("--train.give-up-steps", "200", "--train.steps", "100000")
    assert train(name, tmp_path / "run", tiny, *patience) != 0
    said = capsys.readouterr().err
    assert named in said
    assert "--replay.length" in said
    assert "Traceback" not in said
    assert status(tmp_path / "run")["phase"] == "failed"
    assert len(getattr(faulty, name).received) < 1000


def test_a_finished_store_without_a_window_says_which_input_is_at_fault(
    faulty, tiny, tmp_path, capsys
):
    patience = ("--train.give-up-steps", "64", "--train.steps", "100000")
    train("AlwaysNan", tmp_path / "run", tiny, *patience)
    capsys.readouterr()
    store = ("--store", str(tmp_path / "run" / "store"), "--run", str(tmp_path / "offline"))
    assert main(["train", *store, "--no-publish", *tiny]) != 0
    assert "observation 'vector'" in capsys.readouterr().err


def test_an_observation_is_seen_with_the_last_usable_numbers():
    senses, nan = UsableSenses(), np.float32("nan")
    first = senses.of({"v": np.array([nan, 1.0], np.float32)}, is_first=True)
    assert first["v"].tolist() == [0.0, 1.0]
    good = np.array([2.0, 3.0], np.float32)
    assert senses.of({"v": good}, is_first=False)["v"] is good
    held = senses.of({"v": np.array([5.0, np.inf], np.float32)}, is_first=False)
    assert held["v"].tolist() == [5.0, 3.0]
    again = senses.of({"v": np.array([nan, 1e38], np.float32)}, is_first=False)
    assert again["v"].tolist() == [5.0, 3.0]
    new = senses.of({"v": np.array([nan, nan], np.float32)}, is_first=True)
    assert new["v"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        (ActionSpec(low=(-1.0, 0.0), high=(1.0, 4.0)), [0.0, -1.0]),
        (ActionSpec.choices(3, noop=2), [0.0, 0.0, 1.0]),
    ],
)
def test_an_action_that_is_not_finite_becomes_the_one_that_stops(spec, want):
    broken = np.full(spec.size, np.nan, np.float32)
    assert sendable(broken, spec).tolist() == want
    fine = np.array(want, np.float32)
    assert sendable(fine, spec) is fine


def test_no_broken_policy_sends_anything_but_the_action_that_stops(
    faulty, tiny, tmp_path, monkeypatch
):
    """Weights that are NaN from the start: nothing of them reaches the environment."""
    run, made = tmp_path / "run", AgentCore.act

    def broken(self, *args, **more):
        action, carry = made(self, *args, **more)
        return action * torch.nan, carry

    monkeypatch.setattr(AgentCore, "act", broken)
    train("NanObs", run, tiny, "--train.steps", "192", "--train.replay-ratio", "1")
    sent = np.array(faulty.NanObs.received)
    assert np.isfinite(sent).all()
    assert (sent[100:] == 0.0).all()
    assert status(run)["invalid_steps"]["action"] > 0


def test_a_run_that_diverged_goes_on_from_its_last_good_state(
    faulty, tiny, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    steps = ("--train.steps", "192", "--train.checkpoint-every-s", "0.001")
    update = AgentCore.update

    def diverging(self, *args, **more):
        metrics, posterior = update(self, *args, **more)
        if self.updates >= 25:
            metrics["loss"] = metrics["loss"] * torch.nan
        return metrics, posterior

    with monkeypatch.context() as patch:
        patch.setattr(AgentCore, "update", diverging)
        assert train("NanObs", run, tiny, *steps) != 0
    assert "ceased to be finite" in capsys.readouterr().err
    assert status(run)["phase"] == "diverged"
    good = checkpoint.listed(run)[-1]
    assert int(good.stem) < 30
    assert main(["train", "--run", str(run), "--resume"]) == 0
    assert status(run)["phase"] == "done"
    assert status(run)["updates"] > 30
    ledger = Ledger(run / "store" / LEDGER_NAME)
    assert ledger.counts()["steps"] == status(run)["agent_steps"]
    ledger.close()
