"""Prioritised draws follow the losses, balanced ones what was drawn; all go on exactly."""

from __future__ import annotations

import io
import json
from collections import Counter

import numpy as np
import pytest
import torch

from wm_core.cli.main import main
from wm_core.replay.sampler import Sampler
from wm_core.replay.selectors import Balanced, Prioritized, Uniform
from wm_core.replay.settings import (
    BalancedConfig,
    PrioritizedConfig,
    ReplayConfig,
    UniformConfig,
)
from wm_core.store.retention import prune
from wm_core.training import checkpoint
from wm_core.training.checkpoint import plain, restored

SESSION = 1 << 32


def prioritized(seed=0, **settings):
    return Prioritized(PrioritizedConfig(**settings), np.random.default_rng(seed))


def sampler_of(store, *, seed=0, **settings):
    rng = np.random.default_rng(seed)
    selector = Prioritized(PrioritizedConfig(**settings), rng)
    return Sampler(store, batch=8, length=10, rng=rng, online_queue=False, selector=selector)


def runs(*pairs):
    first, count = zip(*pairs, strict=True)
    return np.array(first, np.int64), np.array(count, np.int64)


@pytest.mark.parametrize(("exponent", "uniform"), [(1.0, 0.0), (0.5, 0.0), (1.0, 0.4), (0.0, 0.0)])
def test_draws_follow_the_losses_to_the_exponent_with_a_uniform_share(exponent, uniform):
    selector = prioritized(exponent=exponent, uniform=uniform)
    selector.refresh(*runs((7, 3), (2 * SESSION + 5, 2)))
    losses = np.array([1.0, 2.0, 4.0, 8.0, 1.0])
    keys = np.array([7, 8, 9, 2 * SESSION + 5, 2 * SESSION + 6])
    selector.update(keys, losses)
    draws = 20_000
    counts = np.bincount(selector.choose(draws), minlength=5)
    chance = (1 - uniform) * losses**exponent / (losses**exponent).sum() + uniform / 5
    chi_square = np.square(counts - draws * chance) / (draws * chance)
    assert chi_square.sum() < 18.5  # 4 degrees of freedom: once in a thousand


def test_a_window_that_was_never_trained_on_counts_as_the_worst():
    selector = prioritized(exponent=1.0, uniform=0.0)
    selector.refresh(*runs((0, 2)))
    selector.update(np.array([0, 1]), np.array([1.0, 9.0]))
    selector.refresh(*runs((0, 3)))
    counts = np.bincount(selector.choose(19_000), minlength=3) / 1000
    assert counts == pytest.approx([1.0, 9.0, 9.0], abs=0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_loss_that_is_no_number_changes_nothing(bad):
    selector = prioritized()
    selector.refresh(*runs((0, 2)))
    before = selector.state()
    selector.update(np.array([1]), np.array([bad]))
    assert json.dumps(plain(selector.state()["largest"])) == json.dumps(before["largest"])
    np.testing.assert_array_equal(selector.state()["tables"][0], before["tables"][0])


def test_a_huge_loss_leaves_the_chances_numbers():
    selector = prioritized(exponent=2.0, uniform=0.5)
    selector.refresh(*runs((0, 4)))
    selector.update(np.arange(4), np.array([1.0, 1e30, 1.0, 1.0]))
    assert set(selector.choose(200).tolist()) == {0, 1, 2, 3}
    assert len(selector.choose(0)) == 0


def test_windows_of_the_store_are_drawn_by_the_loss_of_their_first_step(tagged):
    tagged.fill(4)
    sampler = sampler_of(tagged.open(), exponent=1.0, uniform=0.0)
    keys = np.arange(71) + (sampler.sample().key[0, 0] >> 32 << 32)
    sampler.selector.update(keys, np.where(np.arange(71) == 42, 1.0, 0.0))
    drawn = Counter(int(k) & 0xFFFF for _ in range(20) for k in sampler.sample().key[:, 0])
    assert drawn == {42: 160}


def test_losses_stay_with_their_windows_when_old_steps_are_pruned(tagged):
    paths = tagged.fill(6)
    store = tagged.open()
    sampler = sampler_of(store, exponent=1.0, uniform=0.0)
    keys = np.arange(111) + (sampler.sample().key[0, 0] >> 32 << 32)
    sampler.selector.update(keys, np.where(np.arange(111) == 90, 1.0, 0.0))
    prune(tagged.root, tagged.ledger, 3 * paths[0].stat().st_size)
    store.refresh()
    assert store.segments[0].first_index >= 60
    assert {int(k) & 0xFFFF for k in sampler.sample().key[:, 0]} == {90}


def test_a_saved_sampler_goes_on_with_the_same_draws(tagged):
    tagged.fill(4)
    store = tagged.open()
    sampler, resumed = sampler_of(store), sampler_of(store, seed=9)
    for n in range(5):
        keys = sampler.sample().key[:, 0]
        sampler.selector.update(keys, np.arange(8.0) + n)
    file = io.BytesIO()
    torch.save(plain(sampler.state()), file)
    file.seek(0)
    resumed.load_state(restored(torch.load(file, weights_only=True)))
    for n in range(5):
        one, other = sampler.sample().key, resumed.sample().key
        np.testing.assert_array_equal(one, other)
        for each in (sampler, resumed):
            each.selector.update(one[:, 0], np.arange(8.0)[::-1] * n)


def test_uniform_draws_are_those_of_the_generator_one_by_one():
    selector = Uniform(UniformConfig(), np.random.default_rng(3))
    selector.refresh(*runs((0, 50), (SESSION, 21)))
    rng = np.random.default_rng(3)
    assert selector.choose(9).tolist() == [int(rng.integers(71)) for _ in range(9)]


def test_a_selector_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="prioritized"):
        ReplayConfig(selector="prioritised")


@pytest.mark.long
def test_a_run_trains_with_prioritised_draws_and_keeps_what_it_learnt_of_them(tmp_path):
    run, options = tmp_path / "run", ("--size", "micro", "--device", "cpu", "--quiet")
    small = ("--replay.batch", "4", "--replay.length", "8", "--behavior.imag-starts", "8")
    chosen = ("--replay.selector", "prioritized", "--replay.prioritized.exponent", "0.5")
    steps = ("--train.prefill", "64", "--train.eval-every", "0", "--train.video-every", "0")
    train = ["train", "--run", str(run), "--task", "seek", *options, *small, *chosen, *steps]
    assert main([*train, "--train.updates", "4"]) == 0
    _, state = checkpoint.newest(run)
    assert state["config"]["replay"]["prioritized"]["exponent"] == 0.5
    selector = restored(state["learner"]["sampler"])["selector"]
    known = sum(int((table >= 0).sum()) for table in selector["tables"].values())
    assert 0 < known <= 16


# ---- balanced --------------------------------------------------------------------------------


def balanced(temperature, seed=0):
    return Balanced(BalancedConfig(temperature=temperature), np.random.default_rng(seed))


def test_a_window_is_the_likelier_the_less_it_was_drawn():
    """Windows 0 and 1 were drawn 30 times each before windows 2 and 3 came."""
    odds = []
    for seed in range(3000):
        selector = balanced(20.0, seed)
        selector.load_state({"draws": {0: np.array([30, 30])}})
        selector.refresh(*runs((0, 2), (SESSION, 2)))
        odds.append(int(selector.choose(1)[0]))
    counts = np.bincount(odds, minlength=4)
    chance = np.array([np.exp(-1.5), np.exp(-1.5), 1.0, 1.0])
    expected = 3000 * chance / chance.sum()
    assert (np.square(counts - expected) / expected).sum() < 16.3  # 3 degrees: once in a thousand


def test_balanced_draws_count_every_window_and_even_out():
    selector = balanced(0.1)  # so cold that nothing is drawn twice before all were drawn once
    selector.refresh(*runs((7, 30), (2 * SESSION + 5, 20)))
    assert sorted(np.concatenate([selector.choose(10) for _ in range(5)])) == [*range(50)]
    tables = selector.state()["draws"]
    assert (tables[0][7:37] == 1).all()
    assert (tables[2][5:25] == 1).all()
    assert len(set(selector.choose(50).tolist())) == 50
    assert len(selector.choose(0)) == 0


def test_more_windows_than_there_are_repeat():
    selector = balanced(20.0)
    selector.refresh(*runs((0, 3)))
    assert sorted(selector.choose(9).tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert selector.state()["draws"][0][:3].tolist() == [3, 3, 3]


def test_draws_stay_with_their_windows_when_old_steps_are_pruned_and_new_ones_come():
    selector = balanced(0.1)
    selector.refresh(*runs((0, 4)))
    selector.choose(4)
    selector.refresh(*runs((2, 4), (SESSION, 1)))  # windows 4, 5 and those of session 1 are new
    assert sorted(selector.choose(3).tolist()) == [2, 3, 4]


def test_a_saved_balanced_sampler_goes_on_with_the_same_draws(tagged):
    tagged.fill(4)
    store = tagged.open()

    def made(seed):
        rng = np.random.default_rng(seed)
        selector = Balanced(BalancedConfig(), rng)
        return Sampler(store, batch=8, length=10, rng=rng, online_queue=False, selector=selector)

    sampler, resumed = made(0), made(9)
    for _ in range(5):
        sampler.sample()
    file = io.BytesIO()
    torch.save(plain(sampler.state()), file)
    file.seek(0)
    resumed.load_state(restored(torch.load(file, weights_only=True)))
    for _ in range(5):
        np.testing.assert_array_equal(sampler.sample().key, resumed.sample().key)
