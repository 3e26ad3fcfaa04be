"""Whether batches are read ahead changes nothing that is learnt."""

from __future__ import annotations

import torch

from wm_core.training import checkpoint


def test_reading_ahead_changes_no_bit_of_a_run(train_toy):
    ahead, plain = (
        train_toy("--train.updates", "30", "--no-publish", *more)
        for more in ((), ("--replay.no-prefetch",))
    )
    one, other = (checkpoint.newest(run)[1]["learner"] for run in (ahead, plain))
    assert one["updates"] == other["updates"] == 30
    assert str(one["sampler"]) == str(other["sampler"])
    for name, value in one["agent"].items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other["agent"][name]), name
