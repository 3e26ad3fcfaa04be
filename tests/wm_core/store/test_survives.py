"""No row, no file and no foreign chunk stops the service or the learner; each is counted."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib

import numpy as np
import pytest

from wm_core.store.frames import BlockLost
from wm_core.store.ingest import ingest
from wm_core.store.reconcile import Reconciled, reconcile
from wm_core.store.verify import verify


def spans(store):
    return [(s.session, s.first_index, s.length) for s in store.segments]


def everything(store):
    rows = np.concatenate([s.rows(0, s.length) for s in store.segments])
    steps = store.read(rows)
    return steps, store.observe(steps)


def sidecar(path):
    return path.with_suffix(".idx")


def other_spec(tagged, **changes):
    return tagged.spec.model_copy(update=changes or {"period_s": 0.1})


def test_most_steps_decide_the_spec_and_not_the_first_arrival(tagged):
    tagged.write(0, 0, session=7, spec=other_spec(tagged))
    for seq in range(3):
        tagged.write(seq, 20 * seq)
    store = tagged.open()
    assert store.spec == tagged.spec
    assert [s.length for s in store.segments] == [60]
    assert store.left_out == {"other spec": 1}


def test_the_learners_own_spec_decides_though_nothing_right_has_arrived_yet(tagged):
    for seq in range(5):
        tagged.write(seq, 20 * seq, session=7, spec=other_spec(tagged))
    store = tagged.open(spec=tagged.spec)
    assert (store.segments, store.left_out) == ([], {"other spec": 5})
    tagged.write(0, 0)
    store.refresh()
    assert [s.length for s in store.segments] == [20]
    np.testing.assert_array_equal(everything(store)[0]["reward"], np.arange(20))


def test_inputs_that_the_learner_does_not_name_are_not_read(tagged):
    tagged.fill(2)
    images = {"wrist": tagged.spec.images["wrist"]}
    store = tagged.open(spec=other_spec(tagged, images=images))
    _, obs = everything(store)
    assert obs.keys() == {"wrist", "proprio"}
    np.testing.assert_array_equal(obs["wrist"][:, 1, 1, 0], np.arange(40))


BAD_ROWS = {
    "the largest first step": {"first_step": 2**63 - 1},
    "a first step in other sessions' keys": {"first_step": 2**32},
    "a negative first step": {"first_step": -1},
    "no steps": {"steps": 0},
    "more steps than a chunk holds": {"steps": 2**40},
    "a name that leads elsewhere": {"robot": "../../etc"},
    "a session that is no number": {"session": "x" * 32},
    "text for a number": {"seq": "seven"},
    "bytes for a hash": {"sha256": b"\xff\x00"},
    "a number for a name": {"robot": 7.5},
    "a size beyond all disks": {"bytes": 2**62},
}


@pytest.mark.parametrize("change", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_out_of_bounds_stops_neither_reader_nor_service(tagged, change):
    tagged.fill(2)
    db = sqlite3.connect(tagged.root / "ledger.sqlite")
    for row in ({"session": "f" * 32}, {"session": "e" * 32}):
        fields = {
            **{"robot": "rover", "seq": 0, "sha256": "0" * 64, "bytes": 1, "steps": 20},
            **{"first_step": 0, "received_ns": 1, **row, **change},
        }
        if "session" in change and row["session"][0] == "e":
            continue
        marks = ", ".join("?" * len(fields))
        sql = f"INSERT INTO chunks ({', '.join(fields)}) VALUES ({marks})"
        db.execute(sql, list(fields.values()))
    db.commit()
    db.close()
    tagged.write(2, 40)
    store = tagged.open()
    assert spans(store)[0][1:] == (0, 60)
    assert store.steps == 60
    assert tagged.ledger.counts()["steps"] == 60
    assert reconcile(tagged.root, tagged.ledger).unsound >= 1
    assert reconcile(tagged.root, tagged.ledger) == Reconciled()
    assert spans(tagged.open()) == [(0, 0, 60)]


def test_a_row_out_of_bounds_gives_way_to_the_chunk_whose_name_it_has(tagged):
    db = sqlite3.connect(tagged.root / "ledger.sqlite")
    values = ("robot", "0" * 32, 0, "0" * 64, 1, 20, 2**63 - 1, 1)
    db.execute(
        "INSERT INTO chunks (robot, session, seq, sha256, bytes, steps, first_step, received_ns)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        values,
    )
    db.commit()
    db.close()
    tagged.fill(2)
    assert spans(tagged.open()) == [(0, 0, 40)]
    assert tagged.ledger.counts()["unsound"] == 1


def test_steps_that_two_rows_of_an_old_ledger_claim_are_read_once(tagged):
    tagged.fill(2)
    path = tagged.write(5, 100)
    tagged.ledger.close()
    db = sqlite3.connect(tagged.root / "ledger.sqlite")
    db.execute("UPDATE chunks SET first_step = 10 WHERE seq = 5")  # as version 1 let it in
    db.commit()
    db.close()
    store = tagged.open()
    assert path.exists()
    assert spans(store) == [(0, 0, 40)]
    assert store.left_out == {"overlap": 1}


def test_a_flipped_bit_in_the_pixels_is_noticed_and_not_learnt_from(tagged):
    paths = tagged.fill(3)
    store = tagged.open()
    chunk_of = store._chunks[1]
    lost = 0
    good = paths[1].read_bytes()
    for at in range(chunk_of.blocks[0].offset, chunk_of.blocks[0].offset + 400, 7):
        paths[1].write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        place = chunk_of.blocks[0]
        try:
            block = store.cache.read((99, 0), place)
        except BlockLost:
            lost += 1
        else:
            assert zlib.crc32(block) == place.crc
        store.cache.release()
        store.cache.forget({99})
    assert lost > 0


def test_a_block_that_was_sound_once_is_checked_at_every_later_read(tagged):
    path = tagged.write(0, 0)
    store, good = tagged.open(cache_bytes=0), path.read_bytes()
    place = store._chunks[0].blocks[0]
    block = store.cache.read((0, 0), place)
    for at in range(place.offset, place.offset + place.size, 9):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with contextlib.suppress(BlockLost):
            assert store.cache.read((0, 0), place) == block
        store.cache.release()
    path.write_bytes(good)
    assert store.cache.read((0, 0), place) == block
    place.crc ^= 1  # of what it unpacks to, which is not looked at again for the same bytes
    assert store.cache.read((0, 0), place) == block
    path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    store.cache.release()
    with pytest.raises(BlockLost):
        store.cache.read((0, 0), place)
    store.cache.release()


WEIRD = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "an empty file": lambda path: path.write_bytes(b""),
    "another format": lambda path: path.write_bytes(b"\x89MCAP0\r\n" * 100),
    "a huge file": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 2**36),
}


@pytest.mark.parametrize("make", WEIRD.values(), ids=WEIRD)
def test_nothing_that_lies_in_the_folder_stops_service_or_learner(tagged, make):
    paths = tagged.fill(2)
    make(paths[0].with_name("00000007.mcap"))
    make(paths[0].with_name("00000001.idx.0123abcd.tmp"))
    (tagged.root / "robot" / "not-a-session").mkdir()
    make(tagged.root / "rubbish")
    found = reconcile(tagged.root, tagged.ledger)
    assert (found.adopted, found.missing) == (0, 0)
    assert found.quarantined + found.unreadable >= 1
    assert spans(tagged.open()) == [(0, 0, 40)]


def test_a_row_whose_file_became_something_else_is_left_out(tagged):
    paths = tagged.fill(3)
    sidecar(paths[1]).unlink()
    paths[1].unlink()
    paths[1].mkdir()
    store = tagged.open()
    assert spans(store) == [(0, 0, 20), (0, 40, 20)]
    assert store.left_out == {"damaged": 1}
    assert reconcile(tagged.root, tagged.ledger).missing == 1


def test_a_pipe_in_the_place_of_a_stored_file_makes_no_one_wait(tagged):
    paths = tagged.fill(3)
    open_already = tagged.open(cache_bytes=0)
    data = paths[1].read_bytes()
    for path in (paths[1], sidecar(paths[1])):
        path.unlink()
        os.mkfifo(path)
    store = tagged.open()
    assert spans(store) == [(0, 0, 20), (0, 40, 20)]
    with pytest.raises(BlockLost):
        everything(open_already)
    assert verify(tagged.root, tagged.ledger).damaged[0][0].seq == 1
    key = tagged.ledger.since(0)[1].key
    assert ingest(tagged.root, tagged.ledger, key, data).kind == "known"
    assert paths[1].read_bytes() == data


PRUNED = {"beyond all chunks": 2**62, "the newest chunk": 3, "text": "all", "bytes": b"\xff"}


@pytest.mark.parametrize("through", PRUNED.values(), ids=PRUNED)
def test_a_wild_note_of_what_was_evicted_removes_no_file(tagged, through):
    paths = tagged.fill(3)
    db = sqlite3.connect(tagged.root / "ledger.sqlite")
    db.execute("INSERT INTO pruned VALUES (?)", (through,))
    db.commit()
    db.close()
    assert not any(reconcile(tagged.root, tagged.ledger))
    assert all(path.exists() for path in paths)
    assert spans(tagged.open()) == [(0, 0, 60)]


def test_an_arrival_at_the_end_of_all_numbers_stops_no_later_chunk(tagged):
    tagged.fill(2)
    db = sqlite3.connect(tagged.root / "ledger.sqlite")
    values = (2**63 - 1, "robot", "f" * 32, 0, "0" * 64, 1, 20, 0, 1)
    db.execute(f"INSERT INTO chunks VALUES ({', '.join('?' * 9)})", values)
    db.commit()
    db.close()
    assert reconcile(tagged.root, tagged.ledger).unsound == 1
    tagged.write(2, 40)
    assert spans(tagged.open()) == [(0, 0, 60)]
    assert tagged.ledger.counts()["arrival"] == 3
