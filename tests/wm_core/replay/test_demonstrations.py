"""Demonstrations fill their share of a batch; windows with interventions come more often."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from wm_core.replay.batch import NO_CONTEXT
from wm_core.replay.demonstrations import DEMONSTRATION_KEY, WithDemonstrations
from wm_core.replay.interventions import InterventionWindows
from wm_core.replay.prefetch import PrefetchingSampler
from wm_core.replay.sampler import Sampler
from wm_core.replay.selectors import Prioritized
from wm_core.replay.settings import PrioritizedConfig, ReplayConfig
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store


@pytest.fixture
def shown(tmp_path, make_step, spec):
    """A store of 60 demonstrated steps, whose rewards are their numbers."""
    root = tmp_path / "shown"
    ledger = Ledger(root / LEDGER_NAME)
    recorder = EnvRecorder(root, ledger, robot="teacher", task="", spec=spec)
    for number in range(60):
        recorder.add(make_step(number))
    recorder.seal()
    ledger.close()
    return root


@pytest.fixture
def own(tmp_path, make_step, spec):
    """A store of the run's own, and a function that adds steps to it, some interventions."""
    root = tmp_path / "own"
    ledger = Ledger(root / LEDGER_NAME)
    recorder = EnvRecorder(root, ledger, robot="rover", task="", spec=spec)

    def add(numbers, interventions=()):
        for number in numbers:
            step = make_step(number)
            recorder.add(replace(step, is_intervention=number in interventions))
        recorder.seal()

    add(range(100), interventions={50})
    yield root, add
    ledger.close()


def opened(root):
    store = Store(root, cache_bytes=1 << 20)
    store.refresh()
    return store


def joined(own, shown, *, kind=Sampler, seed=0, selector=None, length=8):
    rng, store = np.random.default_rng(seed), opened(shown)
    more = {} if selector is None else {"selector": selector(rng)}
    main = kind(opened(own), batch=6, length=length, rng=rng, **more)
    rows = kind(store, batch=2, length=length, rng=np.random.default_rng(seed + 1))
    return WithDemonstrations(main, rows, store)


@pytest.mark.parametrize("kind", [Sampler, PrefetchingSampler])
def test_the_last_windows_of_every_batch_are_demonstrations(own, shown, kind):
    sampler = joined(own[0], shown, kind=kind)
    assert sampler.can_sample()
    for _ in range(10):
        batch = sampler.sample()
        assert batch.obs["image"].shape[:2] == batch.reward.shape == (8, 8)
        of_teacher = batch.is_demonstration
        assert of_teacher[6:].all()
        assert not of_teacher[:6].any()
        assert (batch.key[6:] >= DEMONSTRATION_KEY).all()
        assert (batch.key[:6] < DEMONSTRATION_KEY).all()
        number = batch.key % 2**32
        np.testing.assert_array_equal(batch.reward, np.where(batch.is_first, 0, number))
        begins = number[:, 0] == 0
        before = np.where(begins, NO_CONTEXT, batch.key[:, 0] - 1)
        np.testing.assert_array_equal(batch.context_key, before)
    sampler.close()


def test_a_batch_waits_for_windows_of_both_kinds(shown, tmp_path, make_step, spec):
    Ledger(tmp_path / "empty" / LEDGER_NAME).close()
    sampler = joined(tmp_path / "empty", shown)
    assert not sampler.can_sample()


def test_a_resumed_sampler_goes_on_with_the_same_demonstrations(own, shown):
    sampler = joined(own[0], shown)
    sampler.sample()
    state = json.loads(json.dumps(sampler.state()))
    again = joined(own[0], shown, seed=77)
    again.load_state(state)
    for _ in range(5):
        np.testing.assert_array_equal(sampler.sample().key, again.sample().key)
    plain = Sampler(opened(own[0]), batch=6, length=8, rng=np.random.default_rng(5))
    late = joined(own[0], shown, seed=77)
    late.load_state(plain.state())  # of a run that had none before
    np.testing.assert_array_equal(late.sample().key[:6], plain.sample().key)


def test_own_windows_are_those_that_would_be_drawn_without_demonstrations(own, shown):
    with_some = joined(own[0], shown)
    alone = Sampler(opened(own[0]), batch=6, length=8, rng=np.random.default_rng(0))
    for _ in range(5):
        np.testing.assert_array_equal(with_some.sample().key[:6], alone.sample().key)


def test_losses_of_demonstrations_do_not_reach_the_selector_of_the_others(own, shown):
    sampler = joined(own[0], shown, selector=lambda rng: Prioritized(PrioritizedConfig(), rng))
    keys = sampler.sample().key[:, 0]
    sampler.take_losses(keys, np.arange(8.0))
    assert set(sampler.selector.state()["tables"]) == {0}
    sampler.sample()


@pytest.mark.parametrize(
    ("batch", "share", "windows"), [(16, 0.25, 4), (16, 0.01, 1), (16, 0.99, 15), (2, 0.9, 1)]
)
def test_the_share_is_rounded_to_whole_windows_and_leaves_one_of_each_kind(batch, share, windows):
    config = ReplayConfig(batch=batch, demonstrations="x", demonstration_share=share)
    assert config.demonstration_windows == windows
    assert ReplayConfig(batch=batch, demonstration_share=share).demonstration_windows == 0


def test_a_batch_of_one_window_cannot_be_shared():
    with pytest.raises(ValidationError, match="at least 2 windows"):
        ReplayConfig(batch=1, demonstrations="x")


# ------------------------------------------------------------------ interventions


def weighted(root, weight, *, length=8, seed=0, selector=None):
    store, rng = opened(root), np.random.default_rng(seed)
    more = {} if selector is None else {"selector": selector(rng)}
    windows = InterventionWindows(store, length, weight)
    sampler = Sampler(
        store, batch=16, length=length, rng=rng, online_queue=False, interventions=windows, **more
    )
    return store, sampler


def starts(sampler, batches):
    return Counter(int(k) % 2**32 for _ in range(batches) for k in sampler.sample().key[:, 0])


def test_each_window_with_an_intervention_comes_so_many_times_as_often(own):
    _, sampler = weighted(own[0], 5.0)
    counts = starts(sampler, 400)
    assert set(counts) == set(range(93))
    holding = {start for start in counts if start <= 50 < start + 8}
    assert holding == set(range(43, 51))
    often = sum(counts[s] for s in holding) / len(holding)
    seldom = sum(n for s, n in counts.items() if s not in holding) / (93 - len(holding))
    assert often / seldom == pytest.approx(5.0, rel=0.15)
    each = np.array([counts[s] for s in holding])
    assert (abs(each - each.mean()) < 5 * each.mean() ** 0.5).all()


def test_interventions_that_arrive_later_count_too_and_only_new_steps_are_read(own):
    root, add = own
    store, sampler = weighted(root, 50.0)
    sampler.sample()
    read = []
    plainly = store.read
    store.read = lambda rows: read.append(rows.size) or plainly(rows)
    add(range(100, 200), interventions={150})
    store.refresh()
    assert sampler.can_sample()
    assert sum(read) == 100
    store.read = plainly
    counts = starts(sampler, 100)
    assert min(counts[s] for s in (*range(43, 51), *range(143, 151))) > 20


def test_without_an_intervention_windows_are_drawn_as_ever(own, tmp_path, make_step, spec, shown):
    _, sampler = weighted(shown, 5.0)
    plain = Sampler(
        opened(shown), batch=16, length=8, rng=np.random.default_rng(0), online_queue=False
    )
    for _ in range(3):
        np.testing.assert_array_equal(sampler.sample().key, plain.sample().key)


def test_what_is_drawn_ahead_is_the_same_with_interventions(own):
    root = own[0]
    seen = []
    for kind in (Sampler, PrefetchingSampler):
        store, rng = opened(root), np.random.default_rng(3)
        windows = InterventionWindows(store, 8, 9.0)
        sampler = kind(store, batch=4, length=8, rng=rng, interventions=windows)
        seen.append([sampler.sample().key[:, 0].tolist() for _ in range(8)])
        sampler.close()
    assert seen[0] == seen[1]


def test_any_selector_gives_way_to_windows_with_interventions(own):
    _, sampler = weighted(
        own[0], 1000.0, selector=lambda rng: Prioritized(PrioritizedConfig(), rng)
    )
    counts = starts(sampler, 50)
    assert sum(n for s, n in counts.items() if 43 <= s <= 50) > 0.9 * 16 * 50
