"""A store without rewards teaches a world model, and a policy only where actions are cloned."""

from __future__ import annotations

import json

import pytest
import torch

from wm_core.cli.main import main
from wm_core.library.rewards import has_reward
from wm_core.store.reader import Store
from wm_core.training import checkpoint


def opened(root):
    store = Store(root, cache_bytes=0)
    store.refresh()
    return store


@pytest.mark.parametrize(
    ("reward", "terminal", "found"),
    [
        (lambda step: 0.0, False, False),
        (lambda step: 0.0, True, False),
        (lambda step: 1.0, False, False),  # whatever it does, a policy earns this
        (lambda step: 1.0, True, True),  # it pays to live longer
        (lambda step: float(step == 70), False, True),
    ],
)
def test_a_reward_counts_where_a_policy_could_earn_more_of_it(
    record_steps, reward, terminal, found
):
    assert has_reward(opened(record_steps(reward, terminal=terminal))) is found


def trained(root, run, tiny, *more):
    assert main(["train", "--store", str(root), "--run", str(run), *tiny, *more]) == 0
    state = checkpoint.newest(run)[1]["learner"]["agent"]
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


def last_metrics(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def test_without_rewards_the_world_model_alone_is_learnt(record_steps, tiny, tmp_path, capsys):
    root, run = record_steps(), tmp_path / "run"
    one = trained(root, run, tiny[:-1], "--train.updates", "10")
    said = capsys.readouterr().err
    assert "the world model alone is learnt, no policy" in said
    assert "wm data label" in said
    assert "wm evaluate" not in said
    two = trained(root, run, tiny, "--resume", "--train.updates", "20")
    moved = {name for name in one if not torch.equal(one[name], two[name])}
    assert any(name.startswith("world.encoder") for name in moved)
    assert not any(name.startswith("behavior.") for name in moved)
    assert not (run / "policies").exists()
    assert json.loads((run / "settings.json").read_text())["train"]["policy"] == "off"
    metrics = last_metrics(run)
    assert "dyn_loss" in metrics
    assert "policy_loss" not in metrics
    assert main(["export", "--run", str(run), "--to", str(tmp_path / "policy")]) == 2
    assert "has learnt a world model and no policy" in " ".join(capsys.readouterr().err.split())
    for network in ((), ("--checkpoint",)):  # whose actor is as it was drawn
        assert main(["evaluate", "--run", str(run), "--task", "seek", *network]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "has learnt a world model and no policy" in said
    again = ("--resume", "--train.policy", "on", "--no-publish", "--train.updates", "30")
    three = trained(root, run, tiny, *again)
    assert any(not torch.equal(two[n], three[n]) for n in two if n.startswith("behavior.actor"))


@pytest.mark.parametrize(
    "more",
    [("--train.policy", "on"), ("--behavior.clone.scale", "0.1"), ("--follow",)],
    ids=["asked", "cloned", "live"],
)
def test_a_policy_is_learnt_where_it_is_asked_for(record_steps, more, tiny, tmp_path):
    run = tmp_path / "run"
    trained(record_steps(), run, tiny, *more, "--no-publish", "--train.updates", "10")
    assert json.loads((run / "settings.json").read_text())["train"]["policy"] != "off"
    assert "policy_loss" in last_metrics(run)


def test_a_store_with_rewards_is_learnt_from_as_ever(record_steps, tiny, tmp_path):
    run = tmp_path / "run"
    root = record_steps(lambda step: step / 10)
    trained(root, run, tiny, "--no-publish", "--train.updates", "10")
    assert json.loads((run / "settings.json").read_text())["train"]["policy"] == "auto"
    assert "policy_loss" in last_metrics(run)


def test_a_cloned_policy_does_what_was_recorded(record_steps, tiny, tmp_path):
    root = record_steps()
    errors = {}
    for scale in ("0", "1"):
        run = tmp_path / scale
        words = ("--behavior.clone.scale", scale, "--train.policy", "on", "--no-publish")
        trained(root, run, tiny, *words, "--train.updates", "60", "--optim.lr", "3e-3")
        agent = checkpoint.load_agent(run).agent
        obs = {"place": torch.zeros(1, 2)}
        action, _ = agent.act(
            obs,
            agent.initial(1),
            torch.zeros(1, 1),
            torch.ones(1, dtype=torch.bool),
            mean=True,
            generator=torch.Generator().manual_seed(0),
        )
        errors[scale] = abs(float(action) - 0.5)
    assert errors["1"] < 0.15
    assert errors["0"] > 2 * errors["1"]
