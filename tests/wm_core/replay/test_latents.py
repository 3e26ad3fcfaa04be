"""Latents come back under their key until newer ones need the room."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.replay.latents import LatentCache

D, S, K = 5, 3, 4


def latents(keys):
    keys = np.asarray(keys)
    floats = np.stack([keys + i / 8 for i in range(D)], 1).astype(np.float32)
    classes = (keys[:, None] + np.arange(S)) % K
    return keys.astype(np.int64), floats, np.eye(K, dtype=np.float32)[classes]


def make(capacity=10):
    return LatentCache(capacity, floats=D, groups=S, classes=K)


def assert_held(cache, keys):
    keys, floats, stoch = latents(keys)
    got_floats, got_stoch, found = cache.get(keys)
    assert found.all()
    assert got_floats.dtype == got_stoch.dtype == np.float32
    np.testing.assert_array_equal(got_floats, floats)
    np.testing.assert_array_equal(got_stoch, stoch)


def test_what_was_put_comes_back():
    cache = make()
    cache.put(*latents([3, 1, 7]))
    assert_held(cache, [1, 7, 3])
    assert len(cache) == 3


def test_steps_of_other_sessions_are_other_steps():
    cache = make()
    keys, floats, stoch = latents([1, 2])
    cache.put(keys + (np.array([0, 5]) << 32), floats, stoch)
    assert cache.get(np.array([1, 2, (5 << 32) + 2]))[2].tolist() == [True, False, True]


def test_what_is_unknown_is_zero_and_said_so():
    cache = make()
    cache.put(*latents([3]))
    floats, stoch, found = cache.get(np.array([-1, 3, 4]))
    assert found.tolist() == [False, True, False]
    assert not floats[[0, 2]].any()
    assert not stoch[[0, 2]].any()


def test_the_oldest_leave_first():
    cache = make(4)
    cache.put(*latents([1, 2, 3]))
    cache.put(*latents([4, 5]))
    assert cache.get(np.arange(1, 6))[2].tolist() == [False, True, True, True, True]
    assert_held(cache, [2, 3, 4, 5])
    assert len(cache) == 4


def test_a_key_that_comes_again_is_renewed_in_its_place():
    cache = make(4)
    cache.put(*latents([1, 2, 3, 4]))
    keys, floats, stoch = latents([2, 2])
    floats[0] = 9
    cache.put(keys, floats, stoch)
    assert len(cache) == 4
    assert_held(cache, [1, 2, 3, 4])


@pytest.mark.parametrize("capacity", [1, 3, 7])
def test_it_agrees_with_a_plain_ring(capacity):
    rng = np.random.default_rng(capacity)
    cache, ring = make(capacity), []
    for _ in range(200):
        keys = rng.integers(0, 12, rng.integers(1, 6))
        cache.put(*latents(keys))
        for key in keys[-capacity:].tolist():
            if key not in ring:
                ring = [*ring, key][-capacity:]
        assert_held(cache, sorted(ring))
        assert cache.get(np.arange(12))[2].sum() == len(ring) == len(cache)


def test_more_than_fits_keeps_the_last():
    cache = make(3)
    cache.put(*latents(range(8)))
    assert_held(cache, [5, 6, 7])


def test_values_beyond_half_precision_stay_finite():
    cache = make()
    keys, floats, stoch = latents([1])
    cache.put(keys, floats + 1e9, stoch)
    assert np.isfinite(cache.get(keys)[0]).all()


def test_without_room_nothing_is_remembered():
    cache = make(0)
    cache.put(*latents([1]))
    assert not cache.get(np.array([1]))[2].any()
    cache.load_state(cache.state())


def test_a_restored_cache_goes_on_the_same():
    cache, other = make(4), make(4)
    cache.put(*latents([1, 2, 3, 4, 5]))
    other.put(*latents([8, 9]))
    other.load_state(cache.state())
    assert other.nbytes == cache.nbytes
    for one in (cache, other):
        one.put(*latents([6, 7]))
        assert_held(one, [4, 5, 6, 7])
        assert len(one) == 4


def test_a_smaller_cache_restores_the_newest():
    cache, small = make(5), make(2)
    cache.put(*latents([1, 2, 3, 4]))
    small.load_state(cache.state())
    assert_held(small, [3, 4])
    assert len(small) == 2
