"""The image decoder begins at the data's mean colour, once, and not over learnt weights."""

import numpy as np
import pytest
import torch

from wm_core.cli.main import main
from wm_core.training.checkpoint import listed, load

BIAS = "world.decoder.images.image.up.6.bias"
MEAN = ("--world.decoder.start", "mean", "--no-publish", "--optim.lr", "1e-12")
NEXT = ("--train.steps", "128", "--train.updates")


def bias(run) -> np.ndarray:
    """(C,) of the newest checkpoint of ``run``."""
    return load(listed(run)[-1])["learner"]["agent"][BIAS].numpy()


@pytest.fixture(scope="module")
def run(train_toy):
    return train_toy(*MEAN, *NEXT, "1")


def test_a_bar_an_eighth_wide_begins_as_an_eighth_of_white(run):
    shade = torch.sigmoid(torch.from_numpy(bias(run))).numpy()
    assert shade == pytest.approx([1 / 8] * 3, abs=1e-3)


def test_the_bias_is_set_before_the_first_update_alone(run, toy, tiny, tmp_path):
    words = ("train", "--task", toy, "--run", str(run), "--resume", *tiny, *MEAN, *NEXT, "9")
    before = bias(run)
    assert main([*words, "--optim.lr", "1e-30"]) == 0
    assert len(listed(run)) == 2
    assert (bias(run) == before).all()


@pytest.mark.parametrize(("part", "kept"), [("all", True), ("world", True), ("encoder", False)])
def test_a_bias_that_was_learnt_is_kept(train_toy, toy, tiny, part, kept):
    learnt = train_toy("--no-publish", *NEXT, "3", "--optim.lr", "0.05", "--optim.warmup", "0")
    words = ("--init-from", str(learnt), "--init-part", part)
    assert (bias(learnt) != 0).all()
    begun = train_toy(*words, *MEAN, *NEXT, "1")
    assert (bias(begun) == pytest.approx(bias(learnt), abs=1e-6)) == kept


def test_a_run_that_is_killed_before_its_first_update_begins_alike(run, train_toy, toy, tiny):
    """The checkpoint of update 0 has gray images; the first update after it sets them."""
    fresh = train_toy("--world.decoder.start", "mean", "--no-publish", "--train.prefill", "0",
                      *NEXT, "1", "--optim.lr", "1e-12")  # fmt: skip
    first = listed(fresh)[0]
    assert (load(first)["learner"]["agent"][BIAS] == 0).all()
    for path in listed(fresh)[1:]:
        path.unlink()
    words = ("train", "--task", toy, "--run", str(fresh), "--resume", *tiny)
    more = ("--world.decoder.start", "mean", "--no-publish", "--train.prefill", "0")
    assert main([*words, *more, *NEXT, "1", "--optim.lr", "1e-12"]) == 0
    assert torch.sigmoid(torch.from_numpy(bias(fresh))).numpy() == pytest.approx(1 / 8, abs=1e-2)
