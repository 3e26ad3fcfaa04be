"""The store knows what arrived, in whatever order, and reads no more than it is asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from itertools import pairwise

import numpy as np
import pytest

from wm_core.contract.errors import StoreError
from wm_core.format import chunk
from wm_core.replay.sampler import Sampler
from wm_core.store.frames import BlockLost, copy_frames, run_ends
from wm_core.store.retention import prune

SESSION = 1 << 32


def spans(store):
    return [(s.session, s.first_index, s.length) for s in store.segments]


def everything(store):
    rows = np.concatenate([s.rows(0, s.length) for s in store.segments])
    steps = store.read(rows)
    return steps, store.observe(steps)


def test_an_empty_store_waits_for_its_first_chunk(tagged):
    store = tagged.open()
    assert (store.steps, store.segments, store.refresh()) == (0, [], 0)
    with pytest.raises(StoreError, match="empty"):
        _ = store.spec
    tagged.write(0, 0)
    assert store.refresh() == 20
    assert store.spec.action.size == 2


def test_every_step_comes_back_as_itself(tagged):
    tagged.fill(4)
    store = tagged.open()
    assert spans(store) == [(0, 0, 80)]
    steps, obs = everything(store)
    numbers = np.arange(80)
    np.testing.assert_array_equal(steps["key"], numbers)
    np.testing.assert_array_equal(steps["reward"], numbers)
    np.testing.assert_array_equal(obs["image"][:, 2, 3], [(n, 0, 7) for n in numbers])
    np.testing.assert_array_equal(obs["wrist"][:, 1, 1, 0], numbers)
    np.testing.assert_array_equal(obs["proprio"], np.stack([numbers, -numbers], 1))
    assert obs["image"].dtype == np.uint8
    assert obs["proprio"].dtype == np.float32


def test_sessions_stay_apart_however_they_arrive(tagged):
    for seq in range(3):
        for session in (5, 9):
            tagged.write(seq, 20 * seq, session=session)
    store = tagged.open()
    assert spans(store) == [(0, 0, 60), (1, 0, 60)]
    steps, obs = everything(store)
    expected = np.arange(60)
    np.testing.assert_array_equal(steps["key"], [*expected, *(SESSION + expected)])
    np.testing.assert_array_equal(obs["proprio"][:, 0], np.tile(expected, 2))


def test_a_growing_store_is_the_same_as_one_that_was_opened_late(tagged):
    store = tagged.open()
    for seq in (0, 1, 4, 3, 6, 2):
        tagged.write(seq, 20 * seq, session=seq % 2, invalid=(45, 70))
        store.refresh()
    late = tagged.open()
    assert spans(store) == spans(late)
    np.testing.assert_array_equal(everything(store)[0], everything(late)[0])


def test_a_missing_chunk_breaks_a_segment_until_it_arrives(tagged):
    store = tagged.open()
    for seq in (0, 1, 3, 4):
        tagged.write(seq, 20 * seq)
    store.refresh()
    assert spans(store) == [(0, 0, 40), (0, 60, 40)]
    tagged.write(2, 40)
    store.refresh()
    assert spans(store) == [(0, 0, 100)]
    steps, obs = everything(store)
    np.testing.assert_array_equal(steps["key"], np.arange(100))
    np.testing.assert_array_equal(obs["proprio"][:, 0], np.arange(100))


def test_steps_that_the_robot_dropped_break_a_segment(tagged):
    tagged.write(0, 0)
    tagged.write(1, 25)
    assert spans(tagged.open()) == [(0, 0, 20), (0, 25, 20)]


def test_an_invalid_step_breaks_a_segment(tagged):
    tagged.fill(3, invalid=(0, 7, 8, 39, 40))
    assert spans(tagged.open()) == [(0, 1, 6), (0, 9, 30), (0, 41, 19)]


@pytest.mark.parametrize("field", ["reward", "action", "proprio"])
def test_a_step_with_nan_is_not_trained_on_though_it_is_marked_valid(tagged, field):
    def spoil(step):
        if step.reward != 5:
            return step
        if field == "reward":
            return dataclasses.replace(step, reward=float("nan"))
        if field == "action":
            return dataclasses.replace(step, action=np.array([np.inf, 0], np.float32))
        return dataclasses.replace(
            step, obs=step.obs | {"proprio": np.array([0, np.nan], np.float32)}
        )

    tagged.write(0, 0, edit=spoil)
    assert spans(tagged.open()) == [(0, 0, 5), (0, 6, 14)]


def test_a_store_whose_files_all_went_away_is_empty(tagged):
    paths = tagged.fill(2)
    store = tagged.open(cache_bytes=0)
    steps = store.read(store.segments[0].rows(0, 40))
    for path in paths:
        path.unlink()
    for _ in paths:
        with pytest.raises(BlockLost):
            store.observe(steps[steps["chunk"] == max(store._chunks)])
    assert store.segments == []


def test_steps_are_found_by_their_key(tagged):
    tagged.fill(3, session=4, invalid=(30,))
    store = tagged.open()
    segment, position = store.find(31)
    assert (segment.first_index, position) == (31, 0)
    assert store.find(30) is None
    assert store.find(60) is None
    assert store.find(SESSION) is None


def test_a_chunk_of_another_spec_is_left_out_and_counted(tagged):
    tagged.write(0, 0)
    other = tagged.open().spec.model_copy(update={"period_s": 0.1})
    tagged.write(1, 20, spec=other)
    tagged.write(2, 40)
    store = tagged.open()
    assert spans(store) == [(0, 0, 20), (0, 40, 20)]
    assert (store.skipped, store.steps) == (1, 60)


def test_a_damaged_chunk_that_has_to_be_read_again_is_left_out_and_the_rest_goes_on(tagged):
    paths = tagged.fill(3)
    data = bytearray(paths[1].read_bytes())
    data[200] ^= 1
    paths[1].write_bytes(bytes(data))
    sidecar(paths[1]).unlink()
    store = tagged.open()
    assert spans(store) == [(0, 0, 20), (0, 40, 20)]
    assert store.skipped == 1


def test_of_many_damaged_chunks_the_log_names_twenty_and_all_are_counted(tagged, caplog):
    for path in tagged.fill(25):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        sidecar(path).unlink()
    assert tagged.open().left_out == {"damaged": 25}
    told = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert len(told) == 20
    assert told[-1].endswith("(later ones are only counted)")


# ---- sidecars --------------------------------------------------------------------------------


def sidecar(path):
    return path.with_suffix(".idx")


def test_a_chunk_is_hashed_and_decoded_once_between_arrival_and_first_batch(tagged, monkeypatch):
    hashed, decoded = [], []
    sha256, read_columns = hashlib.sha256, chunk.read_columns
    monkeypatch.setattr(hashlib, "sha256", lambda data: hashed.append(len(data)) or sha256(data))
    monkeypatch.setattr(
        chunk, "read_columns", lambda data: decoded.append(len(data)) or read_columns(data)
    )
    [path] = tagged.fill(1)
    Sampler(tagged.open(), batch=2, length=4, rng=np.random.default_rng(0)).sample()
    assert hashed == decoded == [path.stat().st_size]
    sidecar(path).unlink()
    tagged.open()
    assert hashed == decoded == 2 * [path.stat().st_size]


def test_a_sidecar_saves_reading_the_chunk(tagged):
    [path] = tagged.fill(1)
    shutil.move(path, path.with_suffix(".away"))
    assert spans(tagged.open()) == [(0, 0, 20)]


@pytest.mark.parametrize("damage", ["delete", "empty", "truncate", "garbage", "flip", "other"])
def test_a_damaged_sidecar_is_made_again(tagged, damage):
    first, second = tagged.fill(2)
    expected = everything(tagged.open())[0]
    path = sidecar(first)
    good = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        bad = {
            "empty": b"",
            "truncate": good[:-50],
            "garbage": os.urandom(3000),
            "flip": good[:900] + bytes([good[900] ^ 1]) + good[901:],
            "other": sidecar(second).read_bytes(),
        }
        path.write_bytes(bad[damage])
    np.testing.assert_array_equal(everything(tagged.open())[0], expected)
    assert path.read_bytes() == good


# ---- memory and disk -------------------------------------------------------------------------


def test_images_in_memory_stay_within_their_bound(tagged):
    tagged.fill(6)
    store = tagged.open(cache_bytes=60_000)
    for _ in range(3):
        everything(store)
        assert 0 < store.cache.nbytes <= 60_000
    assert store.cache.misses > 12


def test_blocks_are_read_once_while_they_fit(tagged):
    tagged.fill(3)
    store = tagged.open()
    everything(store)
    read = store.cache.misses
    assert read == 6  # of 16 and 4 steps in each file, both cameras together
    _, obs = everything(store)
    assert store.cache.misses == read
    np.testing.assert_array_equal(obs["image"][:, 0, 0, 0], np.arange(60))


def test_without_a_cache_everything_still_comes_from_the_disk(tagged):
    tagged.fill(2)
    store = tagged.open(cache_bytes=0)
    assert everything(store)[1]["image"][37, 0, 0, 0] == 37
    assert store.cache.nbytes == 0


def test_a_file_that_vanished_is_left_out_from_then_on(tagged):
    paths = tagged.fill(3)
    store = tagged.open()
    paths[1].unlink()
    with pytest.raises(BlockLost):
        everything(store)
    assert spans(store) == [(0, 0, 20), (0, 40, 20)]
    assert everything(store)[1]["image"][20, 0, 0, 0] == 40


def test_no_descriptor_stays_open(tagged):
    tagged.fill(3)
    store = tagged.open(cache_bytes=0)
    everything(store)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        everything(store)
    assert len(os.listdir("/proc/self/fd")) == before


def test_pruning_evicts_the_oldest_chunks_and_keeps_their_rows(tagged):
    paths = tagged.fill(6)
    sizes = [path.stat().st_size for path in paths]
    store = tagged.open()
    everything(store)
    assert prune(tagged.root, tagged.ledger, sum(sizes[3:])) == 3
    assert [path.exists() for path in paths] == [False] * 3 + [True] * 3
    assert not sidecar(paths[0]).exists()
    assert tagged.ledger.counts()["chunks"] == 6
    assert store.refresh() == 0
    assert spans(store) == [(0, 60, 60)]
    assert store.steps == 120
    np.testing.assert_array_equal(everything(store)[1]["proprio"][:, 0], np.arange(60, 120))
    tagged.write(6, 120)
    store.refresh()
    late = tagged.open()
    assert spans(store) == spans(late) == [(0, 60, 80)]
    assert store.steps == late.steps == 140
    for field in ("key", "reward", "flags"):
        np.testing.assert_array_equal(everything(store)[0][field], everything(late)[0][field])


def test_pruning_keeps_the_newest_chunk_and_can_be_repeated(tagged):
    paths = tagged.fill(3)
    assert prune(tagged.root, tagged.ledger, 1) == 2
    assert prune(tagged.root, tagged.ledger, 1) == 0
    assert [path.exists() for path in paths] == [False, False, True]
    store = tagged.open()
    assert spans(store) == [(0, 40, 20)]
    assert store.row_after(0) < store.end_row
    assert store.row_after(store.arrival) == store.end_row


def test_a_session_that_was_pruned_away_keeps_its_number(tagged):
    tagged.fill(2, session=7)
    tagged.fill(2, session=3)
    prune(tagged.root, tagged.ledger, 1)
    store = tagged.open()
    assert spans(store) == [(1, 20, 20)]
    assert store.find(SESSION + 25) is not None


def test_frames_of_equal_and_unequal_distance_are_copied_alike():
    block = bytes(range(200))
    for offsets in ([5], [5, 20], [5, 20, 35, 50]):
        out = np.empty((len(offsets), 4), np.uint8)
        copy_frames(block, np.array(offsets), out)
        np.testing.assert_array_equal(out, [[o, o + 1, o + 2, o + 3] for o in offsets])


def test_images_at_uneven_distances_are_copied_run_by_run():
    place = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    offsets = np.array([5, 20, 35, 60, 75, 5, 20, 20, 35])
    # to 60 and from it the distance changes; then another block, then another window
    assert run_ends(place, offsets).tolist() == [3, 4, 5, 7]
    assert run_ends(place[:1], offsets[:1]).tolist() == []


def test_segments_never_overlap(tagged):
    tagged.fill(5, invalid=(3, 50))
    for a, b in pairwise(tagged.open().segments):
        assert a.first_index + a.length <= b.first_index
