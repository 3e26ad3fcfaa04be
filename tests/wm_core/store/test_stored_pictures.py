"""The learner reads JPEG pictures of the store as images, within the bound of its cache."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from tests.wm_core.noisy import JPEG, SPEC, noisy_chunk, noisy_step
from wm_core.format.chunk import ChunkKey, chunk_path, decode_chunk, encode_step, join_steps
from wm_core.format.columns import read_columns
from wm_core.replay.sampler import Sampler
from wm_core.store.commit import commit_group
from wm_core.store.examine import Examined
from wm_core.store.frames import BlockLost
from wm_core.store.index import index_path, make_index, write_sidecar
from wm_core.store.ingest import ingest
from wm_core.store.reader import Store

SESSION = "c" * 32


@pytest.fixture
def put(store, ledger):
    """Stores a chunk of noisy steps and gives its steps, decoded."""

    def take(seq, count=20, **kwargs):
        chunk = noisy_chunk(count, first=seq * count, seq=seq, session=SESSION, **kwargs)
        verdict = ingest(store, ledger, *chunk)
        assert verdict.kind == "stored", verdict
        return decode_chunk(chunk[1])[1]

    return take


@pytest.fixture
def open_store(store):
    opened = []

    def make(cache_bytes=10**7):
        opened.append(Store(store, cache_bytes=cache_bytes, keep_indices=True))
        opened[-1].refresh()
        return opened[-1]

    yield make
    for found in opened:
        found.close()


def observed(found):
    rows = np.concatenate([s.rows(0, s.length) for s in found.segments])
    return found.observe(found.read(rows))


@pytest.mark.parametrize("cache_bytes", [0, 10_000, 10**7])
def test_windows_reach_across_lossless_chunks_and_pictures(put, open_store, cache_bytes):
    """As in a session whose codec was chosen after its first steps."""
    steps = put(0, codecs={}) + put(1) + put(2, codecs={"wrist": "jpeg"})
    found = open_store(cache_bytes)
    assert [(s.first_index, s.length) for s in found.segments] == [(0, 60)]
    for _ in range(2):  # the second time from the cache
        obs = observed(found)
        for key in SPEC.images:
            np.testing.assert_array_equal(obs[key], np.stack([s.obs[key] for s in steps]))
        assert found.cache.nbytes <= cache_bytes


def test_pictures_are_decoded_once_while_the_cache_holds_them(put, open_store):
    put(0)
    found = open_store()
    first, misses = observed(found), found.cache.misses
    # the file is no longer needed, and neither is any block of it
    chunk_path(found.root, ChunkKey("rover", SESSION, 0)).unlink()
    again = observed(found)
    assert found.cache.misses == misses
    for key in JPEG:
        np.testing.assert_array_equal(first[key], again[key])


def test_a_sidecar_says_which_cameras_are_pictures(put, store, open_store):
    steps = put(0)
    path = index_path(store, ChunkKey("rover", SESSION, 0))
    assert b'"version":3' in path.read_bytes().replace(b" ", b"")  # older readers make their own
    written = path.read_bytes()
    np.testing.assert_array_equal(
        observed(open_store())["image"], np.stack([s.obs["image"] for s in steps])
    )
    path.unlink()
    observed(open_store())
    assert path.read_bytes() == written


def test_the_sampler_draws_windows_of_pictures(put, open_store):
    steps = put(0) + put(1)
    batch = Sampler(open_store(), batch=4, length=8, rng=np.random.default_rng(0)).sample()
    assert batch.obs["image"].shape == (4, 8, 32, 40, 3)
    for window in range(4):
        for t, reward in enumerate(batch.reward[window].tolist()):
            np.testing.assert_array_equal(
                batch.obs["image"][window, t], steps[round(reward)].obs["image"]
            )


def _with_broken_picture(number):
    """A chunk with right checksums whose picture of one step is cut short."""
    key, data, _ = noisy_chunk(20, session=SESSION)
    meta = decode_chunk(data)[0]
    steps = [noisy_step(i) for i in range(20)]
    encoded = [encode_step(step, SPEC, JPEG) for step in steps]
    picture = decode_chunk(data)[1][number].jpegs["image"]
    cut = dataclasses.replace(steps[number], jpegs={"image": picture[:-200]})
    encoded[number] = encode_step(cut, SPEC, JPEG)
    return key, join_steps(encoded, meta)


def test_a_picture_that_does_not_decode_is_refused_with_its_place(store, ledger):
    key, data = _with_broken_picture(7)
    verdict = ingest(store, ledger, key, data)
    assert verdict.kind == "damaged"
    assert "/image step 7: JPEG picture does not decode" in verdict.reason
    assert (store / "quarantine.d").exists()
    assert not chunk_path(store, key).exists()


def test_a_picture_that_breaks_for_the_learner_costs_its_chunk_alone(
    put, store, ledger, open_store
):
    """Another decoder, at another time, took it in."""
    key, data = _with_broken_picture(7)
    sha256 = hashlib.sha256(data).hexdigest()
    taken = Examined(key, data, sha256, read_columns(data), None)
    assert [v.kind for v in commit_group(store, ledger, [taken])] == ["stored"]
    kept = put(1)
    write_sidecar(store, key, make_index(read_columns(data)), sha256)
    found = open_store()
    assert sum(s.length for s in found.segments) == 40
    with pytest.raises(BlockLost, match="JPEG picture does not decode"):
        observed(found)
    np.testing.assert_array_equal(
        observed(found)["image"], np.stack([s.obs["image"] for s in kept])
    )
    assert found.left_out["gone or damaged"] == 1
