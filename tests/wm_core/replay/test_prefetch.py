"""A batch that is drawn ahead is the one that would have been drawn, whatever happens between."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from wm_core.replay.prefetch import PrefetchingSampler
from wm_core.replay.sampler import Sampler
from wm_core.replay.selectors import Prioritized
from wm_core.replay.settings import PrioritizedConfig
from wm_core.store.retention import prune


@pytest.fixture
def make():
    made = []

    def sampler(kind, store, *, online=True, seed=0, selector=None):
        rng = np.random.default_rng(seed)
        more = {} if selector is None else {"selector": selector(rng)}
        made.append(kind(store, batch=4, length=10, rng=rng, online_queue=online, **more))
        return made[-1]

    yield sampler
    for one in made:
        one.close()
        one.close()


def drawn(sampler, count=1):
    return [sampler.sample().key[:, 0].tolist() for _ in range(count)]


def test_batches_are_the_same_as_without_it_while_the_store_grows(tagged, make):
    tagged.fill(4)
    plain, ahead = (make(kind, tagged.open()) for kind in (Sampler, PrefetchingSampler))
    seen = [[], []]
    for seq in range(4, 10):
        for sampler, keys in zip((plain, ahead), seen, strict=True):
            keys += drawn(sampler, 7)
        tagged.write(seq, 20 * seq)
        for sampler in (plain, ahead):
            sampler._store.refresh()
            assert sampler.can_sample()
    assert seen[0] == seen[1]
    assert plain.state() == ahead.state()
    assert ahead.misses == 6  # the first after each arrival: what was drawn ahead came too early
    assert ahead.hits == 36


def test_a_checkpoint_knows_nothing_of_what_is_drawn_ahead(tagged, make):
    tagged.fill(10)
    sampler = make(PrefetchingSampler, tagged.open())
    drawn(sampler, 5)
    state = sampler.state()
    following = drawn(sampler, 5)
    sampler.load_state(state)
    assert drawn(sampler, 5) == following
    plain = make(Sampler, tagged.open(), seed=9)
    plain.load_state(state)
    assert drawn(plain, 5) == following


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


def test_every_batch_but_the_first_is_drawn_in_a_thread_that_ends(tagged, make):
    tagged.fill(10)
    sampler = make(PrefetchingSampler, tagged.open())
    drawn(sampler, 10)
    assert (sampler.hits, sampler.misses, len(threads())) == (9, 1, 1)
    sampler.close()
    assert threads() == []


def test_what_was_pruned_meanwhile_is_not_given_out(tagged, make):
    tagged.fill(10)
    sampler = make(PrefetchingSampler, tagged.open(), online=False)
    drawn(sampler, 2)
    prune(tagged.root, tagged.ledger, 1)  # the newest chunk stays: steps 180 .. 199
    sampler._store.refresh()
    assert all(180 <= key <= 190 for keys in drawn(sampler, 5) for key in keys)


def test_beside_a_selector_that_learns_from_losses_nothing_is_drawn_ahead(tagged, make):
    tagged.fill(10)

    def selector(rng):
        return Prioritized(PrioritizedConfig(), rng)

    sampler = make(PrefetchingSampler, tagged.open(), selector=selector)
    drawn(sampler, 5)
    assert (sampler.hits, sampler.misses) == (0, 5)
