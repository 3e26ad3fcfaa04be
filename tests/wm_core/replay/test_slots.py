"""A step keeps its slot in the ring until newer steps need the room."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.replay.slots import Slots

SESSION = 1 << 32


def keys(*numbers):
    return np.array(numbers, np.int64)


def held(slots, among):
    """Those of ``among`` that have a slot; no two share one."""
    found = slots.find(keys(*among))
    taken = found[found >= 0]
    assert len(set(taken.tolist())) == len(taken)
    return [key for key, slot in zip(among, found, strict=True) if slot >= 0]


def test_a_claimed_slot_is_found_again():
    slots = Slots(10)
    claimed, last = slots.claim(keys(3, 1, 7))
    assert slots.find(keys(7, 4, 3)).tolist() == [claimed[2], -1, claimed[0]]
    assert last.tolist() == [0, 1, 2]
    assert len(slots) == 3


def test_steps_of_other_sessions_are_other_steps():
    slots = Slots(10)
    slots.claim(keys(1, 5 * SESSION + 2))
    assert held(slots, [1, 2, 5 * SESSION + 1, 5 * SESSION + 2]) == [1, 5 * SESSION + 2]


def test_the_oldest_leave_first():
    slots = Slots(4)
    slots.claim(keys(1, 2, 3))
    slots.claim(keys(4, 5))
    assert held(slots, range(1, 6)) == [2, 3, 4, 5]
    assert slots.oldest_first()[0].tolist() == [2, 3, 4, 5]


def test_a_key_that_comes_again_keeps_its_slot():
    slots = Slots(4)
    before, _ = slots.claim(keys(1, 2, 3, 4))
    again, _ = slots.claim(keys(2, 4))
    assert again.tolist() == before[[1, 3]].tolist()
    assert slots.oldest_first()[0].tolist() == [1, 2, 3, 4]


def test_equal_keys_share_a_slot_and_name_their_last_row():
    claimed, last = Slots(4).claim(keys(8, 9, 8, -1, 8))
    assert claimed[0] == claimed[2] == claimed[4] != claimed[1]
    assert claimed[3] == -1
    assert last.tolist() == [4, 1, 4, 3, 4]


def test_a_key_that_would_be_pushed_out_by_its_own_batch_enters_anew():
    slots = Slots(3)
    slots.claim(keys(1, 2, 3))
    slots.claim(keys(1, 4))
    assert slots.oldest_first()[0].tolist() == [3, 1, 4]


@pytest.mark.parametrize("capacity", [1, 3, 7, 50])
def test_the_newest_are_held_whatever_comes(capacity):
    """Of any batch the last that fit are held at once; slots stay those of their keys."""
    rng = np.random.default_rng(capacity)
    slots, contents, seen = Slots(capacity), {}, set()
    for _ in range(300):
        batch = rng.integers(0, 40, rng.integers(1, 9))
        batch = np.where(batch < 20, batch, batch + 3 * SESSION)
        claimed, last = slots.claim(batch)
        for slot, row in zip(claimed.tolist(), last.tolist(), strict=True):
            if slot >= 0:
                contents[slot] = int(batch[row])
        seen |= set(batch.tolist())
        fit = list(dict.fromkeys(reversed(batch.tolist())))[:capacity]
        assert sorted(held(slots, fit)) == sorted(fit)
        every, places = slots.oldest_first()
        assert len(every) == len(slots) == min(capacity, len(seen))
        assert slots.find(every).tolist() == places.tolist()
        assert [contents[slot] for slot in places.tolist()] == every.tolist()
        assert sorted(held(slots, sorted(seen))) == sorted(every.tolist())


def test_more_than_fits_keeps_the_last():
    slots = Slots(3)
    claimed, _ = slots.claim(np.arange(8))
    assert held(slots, range(8)) == [5, 6, 7]
    assert (claimed[:5] == -1).all()


def test_without_room_nothing_is_held():
    slots = Slots(0)
    assert slots.claim(keys(1))[0].tolist() == [-1]
    assert held(slots, [1]) == []
    slots.load(keys())


def test_loaded_slots_go_on_the_same():
    slots, other = Slots(4), Slots(4)
    slots.claim(keys(1, 2, 3, 4, 5))
    other.claim(keys(8, 9))
    other.load(slots.oldest_first()[0])
    for one in (slots, other):
        one.claim(keys(6, 7))
        assert one.oldest_first()[0].tolist() == [4, 5, 6, 7]


def test_sessions_that_left_the_ring_leave_no_table_behind():
    slots = Slots(4)
    for session in range(100):
        slots.claim(keys(session * SESSION, session * SESSION + 1))
    assert len(slots._tables) <= 2
