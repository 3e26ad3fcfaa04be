"""Switches of learning from the command line: each trains, and goes on where it was left."""

import json

import pytest

from wm_core.cli.main import main
from wm_core.training.checkpoint import listed, load

SHORT = ("--no-publish", "--train.steps", "128", "--train.updates")
SWITCHES = {
    "balance": ("--world.balance.kind", "harmony"),
    "windows": ("--replay.selector", "prioritized", "--replay.prioritized.exponent", "0.5"),
    "actor": (
        *("--behavior.entropy.scale", "3e-4", "--optim.actor-lr", "1e-4"),
        *("--behavior.actor.max-std", "0.5", "--behavior.gradient", "dynamics"),
    ),
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_switch_trains_and_resumes_to_the_same_bits(train_toy, toy, tiny, switch):
    whole = train_toy(*SHORT, "14", *SWITCHES[switch])
    cut = train_toy(*SHORT, "7", *SWITCHES[switch])
    words = ("train", "--task", toy, "--run", str(cut), "--resume", *tiny, *SWITCHES[switch])
    assert main([*words, *SHORT, "14"]) == 0
    one, other = (load(listed(run)[-1])["learner"]["agent"] for run in (whole, cut))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one if name != "_extra_state")
    if switch.startswith("balance"):
        assert (one["world.balance.log_scale"] != 0).all()
        rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
        assert any("weight/observation" in row for row in rows)
