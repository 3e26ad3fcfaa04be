"""What has arrived is remembered, in whatever order it came."""

from __future__ import annotations

import random

from wm_core.format.chunk import ChunkKey
from wm_core.store.arrived import Arrived

SESSION = "0" * 32


def test_a_chunk_is_new_once_in_whatever_order_the_chunks_come():
    for seed in range(20):
        arrived, known = Arrived(), set()
        for number in random.Random(seed).choices(range(40), k=200):
            assert arrived.add(ChunkKey("rover", SESSION, number)) == (number not in known)
            known.add(number)


def test_robots_and_sessions_stay_apart():
    arrived = Arrived()
    keys = [ChunkKey(robot, session * 32, 0) for robot in ("arm", "rover") for session in "01"]
    assert [arrived.add(key) for key in keys * 2] == [True] * 4 + [False] * 4


def test_a_session_without_gaps_takes_the_memory_of_two_numbers():
    arrived = Arrived()
    for number in (*range(0, 1000, 2), *range(1, 1000, 2)):
        arrived.add(ChunkKey("rover", SESSION, number))
    assert arrived._edges == {("rover", SESSION): [0, 1000]}
