"""Every system at the size of its paper, through the whole of `wm train`."""

import json

import pytest

from wm_core import presets
from wm_core.cli.main import main

pytestmark = pytest.mark.slow

UPDATES = 3


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_three_updates_at_the_papers_size(preset, toy, tmp_path):
    config = presets.make(preset, "paper")
    steps = max(config.replay.length + 16, 300)
    args = [
        *("train", "--preset", preset, "--size", "paper", "--task", toy),
        *("--run", str(tmp_path), "--train.updates", str(UPDATES), "--train.log-every", "1"),
        *("--train.prefill", str(steps), "--train.steps", str(steps + 100)),
        *("--train.video-every", "0", "--train.eval-every", "0", "--quiet", "--device", "cpu"),
    ]
    if config.optim.stages:  # one update of each
        args += ["--optim.stages", "1", "1"]
    assert main(args) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["updates"] == UPDATES
    trained = [row for row in rows if "loss" in row]
    assert len(trained) == UPDATES  # none of them without a number, or the run had stopped
