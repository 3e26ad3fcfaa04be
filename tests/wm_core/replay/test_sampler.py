"""Windows hold what they should, every one is as likely as the other, and new ones come first."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from wm_core.contract.errors import StoreError
from wm_core.replay.batch import NO_CONTEXT, prev_action
from wm_core.replay.online import OnlineQueue
from wm_core.replay.sampler import Sampler
from wm_core.store.retention import prune


def make(store, *, batch=8, length=10, seed=0, online_queue=False):
    rng = np.random.default_rng(seed)
    return Sampler(store, batch=batch, length=length, rng=rng, online_queue=online_queue)


def windows(sampler, batches):
    return [batch for batch in (sampler.sample() for _ in range(batches))]


def starts(sampler, batches=1):
    return [int(k) for batch in windows(sampler, batches) for k in batch.key[:, 0]]


def assert_tagged(batch, *, episode=1000, breaks=()):
    """Every array of ``batch`` says the number that its key says."""
    number = batch.key % 2**32
    assert (np.diff(batch.key, axis=1) == 1).all()
    np.testing.assert_array_equal(batch.obs["image"][..., 0, 0, 0], number % 256)
    np.testing.assert_array_equal(batch.obs["image"][..., 3, 5, 1], number // 256)
    np.testing.assert_array_equal(batch.obs["wrist"][..., 1, 1, 0], number % 251)
    np.testing.assert_array_equal(batch.obs["proprio"][..., 0], number)
    np.testing.assert_array_equal(batch.policy_version, number)
    begins = np.isin(number, breaks)
    begins[:, 1:] = False  # only a window's own start makes a first step of a break
    first = (number % episode == 0) | begins
    np.testing.assert_array_equal(batch.is_first, first)
    # what arrived with a step behind a gap is true, though its window knows nothing before it
    np.testing.assert_array_equal(batch.reward, np.where(number % episode == 0, 0, number))
    np.testing.assert_array_equal(batch.is_last, number % episode == episode - 1)
    np.testing.assert_array_equal(batch.is_terminal, number % (2 * episode) == episode - 1)
    led = np.where(first, 0, number - 1).astype(np.float32) / 65536
    np.testing.assert_array_equal(batch.prev_action, np.stack([led, -led], -1))
    starts_segment = begins[:, 0] | (number[:, 0] == 0)
    expected = np.where(starts_segment, NO_CONTEXT, batch.key[:, 0] - 1)
    np.testing.assert_array_equal(batch.context_key, expected)


def test_windows_cross_files_and_hold_what_they_should(tagged):
    tagged.fill(10)
    batches = windows(make(tagged.open(), length=50), 20)
    assert batches[0].obs["image"].shape == (8, 50, 4, 6, 3)
    assert batches[0].reward.dtype == batches[0].prev_action.dtype == np.float32
    assert batches[0].key.dtype == batches[0].context_key.dtype == np.int64
    for batch in batches:
        assert_tagged(batch)


def test_windows_cross_episode_borders_and_no_action_crosses_them(tagged):
    tagged.fill(10, episode=7)
    seen = windows(make(tagged.open(), length=30), 10)
    for batch in seen:
        assert_tagged(batch, episode=7)
    assert any(batch.is_first[:, 1:].any() for batch in seen)


def test_a_window_at_the_start_of_a_segment_has_no_context(tagged):
    tagged.fill(3, invalid=(30,))
    store = tagged.open()
    seen = windows(make(store, length=29), 20)
    for batch in seen:
        assert_tagged(batch, breaks=(31,))
    at = {int(k) for batch in seen for k in batch.key[:, 0]}
    assert at == {0, 1, 31}


def test_gaps_and_late_chunks(tagged):
    store = tagged.open()
    sampler = make(store, length=25)
    tagged.write(0, 0)
    store.refresh()
    assert not sampler.can_sample()
    tagged.write(2, 40)
    tagged.write(3, 60)
    store.refresh()
    assert set(starts(sampler, 20)) == set(range(40, 56))
    for batch in windows(sampler, 10):
        assert_tagged(batch, breaks=(40,))
    tagged.write(1, 20)
    store.refresh()
    assert set(starts(sampler, 80)) == set(range(56))
    for batch in windows(sampler, 10):
        assert_tagged(batch)


def test_every_window_is_as_likely_as_any_other(tagged):
    tagged.fill(2, invalid=(12,))  # 12 steps, then 27
    tagged.write(0, 0, session=1)
    counts = Counter(starts(make(tagged.open()), 1000))
    assert set(counts) == {*range(3), *range(13, 31), *(2**32 + n for n in range(11))}
    mean = 8000 / len(counts)
    assert all(abs(n - mean) < 5 * mean**0.5 for n in counts.values())


def test_a_store_without_a_window_is_refused(tagged):
    tagged.fill(1)
    sampler = make(tagged.open(), length=21)
    assert not sampler.can_sample()
    with pytest.raises(StoreError, match="20 steps, but no run of 21"):
        sampler.sample()


def test_keys_are_unique_over_sessions(tagged):
    tagged.fill(2, session=1)
    tagged.fill(2, session=2)
    keys = {int(k) for b in windows(make(tagged.open()), 60) for k in b.key.reshape(-1)}
    assert keys == {*range(40), *(2**32 + n for n in range(40))}


def test_a_vanished_file_costs_its_windows_only(tagged):
    paths = tagged.fill(6)
    store = tagged.open(cache_bytes=0)
    sampler = make(store)
    paths[2].unlink()
    for batch in windows(sampler, 30):
        assert_tagged(batch, breaks=(60,))
    assert set(starts(sampler, 60)) == {*range(31), *range(60, 111)}


def test_sampling_goes_on_while_the_oldest_are_pruned(tagged):
    paths = tagged.fill(6)
    store = tagged.open()
    sampler = make(store, online_queue=True)
    tagged.write(6, 120)
    store.refresh()
    prune(tagged.root, tagged.ledger, 3 * paths[0].stat().st_size)
    store.refresh()
    first = store.segments[0].first_index
    assert first >= 60
    assert set(starts(sampler, 200)) == set(range(first, 131))


def test_the_action_is_shifted_by_one_and_cut_at_the_start():
    action = np.arange(4, dtype=np.float32).reshape(1, 4, 1) + 10
    is_first = np.array([[True, False, True, False]])
    np.testing.assert_array_equal(prev_action(action, is_first)[0, :, 0], [10, 0, 12])


# ---- what is new -----------------------------------------------------------------------------


def test_windows_from_before_the_queue_are_not_new(tagged):
    tagged.fill(5)
    fresh = make(tagged.open(), online_queue=True)
    plain = make(tagged.open())
    assert starts(fresh, 3) == starts(plain, 3)


def test_each_new_window_is_given_once_in_the_order_of_arrival(tagged):
    tagged.fill(2)
    store = tagged.open()
    sampler = make(store, batch=2, online_queue=True)
    for seq in (2, 3, 4):
        tagged.write(seq, 20 * seq)
        store.refresh()
    assert starts(sampler, 3) == [40, 50, 60, 70, 80, 90]
    tagged.write(5, 100)
    store.refresh()
    assert starts(sampler) == [100, 110]
    for batch in windows(sampler, 5):
        assert_tagged(batch)


def test_steps_that_are_too_few_wait_for_more(tagged):
    store = tagged.open()
    sampler = make(store, batch=1, length=30, online_queue=True)
    tagged.write(0, 0)
    store.refresh()
    assert not sampler.can_sample()
    tagged.write(1, 20)
    store.refresh()
    assert sampler.can_sample()
    tagged.write(2, 40)
    store.refresh()
    assert sorted(starts(sampler, 2)) == [0, 30]


def test_a_gap_that_a_late_chunk_fills_is_covered_too(tagged):
    tagged.write(0, 0)
    tagged.write(2, 40)
    store = tagged.open()
    sampler = make(store, batch=1, length=25, online_queue=True)
    tagged.write(1, 20)
    store.refresh()
    [batch] = windows(sampler, 1)
    assert set(range(20, 40)) <= set(batch.key[0].tolist())


def test_every_new_step_is_in_a_window_though_chunks_come_in_any_order(tagged):
    store = tagged.open()
    queue = OnlineQueue(store, 30)
    seen = set()
    for seq in np.random.default_rng(3).permutation(12).tolist():
        tagged.write(seq, 20 * seq)
        store.refresh()
        queue.update()
        while (found := queue.pop()) is not None:
            segment, start = found
            seen |= set(store.read(segment.rows(start, 30))["key"].tolist())
    assert seen >= set(range(240 - 29))  # the last few wait for what follows


# ---- resume ----------------------------------------------------------------------------------


def same(a, b):
    for name in ("prev_action", "reward", "is_first", "key", "context_key", "policy_version"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_array_equal(a.obs["image"], b.obs["image"])


def test_a_resumed_sampler_goes_on_bitwise(tagged):
    tagged.fill(3)
    store = tagged.open()
    sampler = make(store, batch=2, online_queue=True)
    for seq in (3, 4):
        tagged.write(seq, 20 * seq, 17 if seq == 4 else 20)
        store.refresh()
    sampler.sample()
    state = json.loads(json.dumps(sampler.state()))
    resumed = make(tagged.open(cache_bytes=0), batch=2, seed=99, online_queue=True)
    resumed.load_state(state)
    for _ in range(10):
        same(sampler.sample(), resumed.sample())


def test_what_arrived_since_the_checkpoint_is_new_to_a_resumed_sampler(tagged):
    tagged.fill(3)
    store = tagged.open()
    state = make(store, online_queue=True).state()
    tagged.write(3, 60)
    resumed = make(tagged.open(), batch=2, online_queue=True)
    resumed.load_state(state)
    assert starts(resumed) == [60, 70]


def test_chosen_windows_are_read_later_as_if_they_were_drawn_at_once(tagged):
    tagged.fill(3)
    store = tagged.open()
    drawn, choosing = make(store), make(store)
    for _ in range(3):
        choice, batch = choosing.choose(), drawn.sample()
        read = choosing.read(choice)
        np.testing.assert_array_equal(read.key, batch.key)
        np.testing.assert_array_equal(choice.context, batch.context_key)
        for name in ("prev_action", "reward", "is_first", "context_key"):
            np.testing.assert_array_equal(getattr(read, name), getattr(batch, name))


def test_a_window_that_is_not_there_is_not_read(tagged):
    tagged.fill(3)
    store = tagged.open()
    sampler = make(store)
    choice = sampler.choose()
    for key in (-1, (99 << 32) + 5, int(choice.first[0]) + 2**20):
        assert sampler.read(choice._replace(first=np.full(8, key, np.int64))) is None
