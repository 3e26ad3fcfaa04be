"""Reading messages at once and one after another give the same verdict and the same columns."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wm_core.format.forge import take_apart
from tests.wm_core.format.test_chunk import make_meta, make_steps
from wm_core.contract.errors import ChunkRefused
from wm_core.format import records
from wm_core.format.chunk import encode_chunk
from wm_core.format.columns import Columns, read_columns

EXAMPLES = 150


def some_chunk(without_request=()):
    steps = make_steps(18, np.random.default_rng(5))
    steps = [
        dataclasses.replace(s, requested_action=None if i in without_request else s.action)
        for i, s in enumerate(steps)
    ]
    return encode_chunk(steps, make_meta(18))


ALIKE, MIXED = some_chunk(), some_chunk((3, 4, 17))


def outcome(data: bytes, *, bulk: bool) -> Columns | None:
    try:
        return read_columns(data, bulk=bulk)
    except ChunkRefused:
        return None


def assert_same(data: bytes) -> bool:
    """Read both ways; returns whether the chunk was taken."""
    fast, slow = outcome(data, bulk=True), outcome(data, bulk=False)
    assert (fast is None) == (slow is None)
    if fast is None or slow is None:
        return False
    for field in ("stamp_ns", "action", "requested_action", "has_request"):
        np.testing.assert_array_equal(getattr(fast, field), getattr(slow, field))
    for field in ("numbers", "vectors", "image_block", "image_offset"):
        one, other = getattr(fast, field), getattr(slow, field)
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key])
    return True


def test_good_chunks_are_taken_by_both():
    assert assert_same(ALIKE)
    assert assert_same(MIXED)
    assert assert_same(take_apart(MIXED).build())


@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None)
def test_changed_messages_are_judged_alike(data):
    chunk = take_apart(MIXED if data.draw(st.booleans()) else ALIKE)
    for _ in range(data.draw(st.integers(1, 3))):
        block = chunk.blocks[data.draw(st.integers(0, len(chunk.blocks) - 1))]
        at = data.draw(st.integers(0, len(block) - 1))
        opcode, body = block[at]
        kind = data.draw(
            st.sampled_from(["byte", "value", "insert", "cut", "drop", "swap", "copy"])
        )
        place = data.draw(st.integers(0, max(0, min(len(body), 200) - 1)))
        if kind == "byte":
            new = bytes([data.draw(st.integers(0, 255))])
            block[at] = (opcode, body[:place] + new + body[place + 1 :])
        elif kind == "value" and opcode == records.MESSAGE:  # within positions, mostly
            place = max(0, len(body) - 8 * data.draw(st.integers(1, 4)))
            value = data.draw(st.floats(width=64))
            block[at] = (opcode, body[:place] + np.float64(value).tobytes() + body[place + 8 :])
        elif kind == "insert":
            block[at] = (opcode, body + bytes(data.draw(st.integers(1, 30))))
        elif kind == "cut":
            block[at] = (opcode, body[:place])
        elif kind == "drop":
            del block[at]
        elif kind == "swap":
            other = data.draw(st.integers(0, len(block) - 1))
            block[at], block[other] = block[other], block[at]
        else:
            block.insert(at, (opcode, body))
        if not block:
            return
    assert_same(chunk.build())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=18), st.integers(1, 18))
@settings(max_examples=40, deadline=None)
def test_slack_behind_messages_and_other_cuts_of_blocks_are_taken_by_both(slack, per_block):
    """What a serialiser of ROS may leave behind a message changes sizes, not values."""
    chunk = take_apart(ALIKE)
    every = [record for block in chunk.blocks for record in block]
    front = [record for record in every if record[0] != records.MESSAGE]
    messages = [record for record in every if record[0] == records.MESSAGE]
    loose = [
        (opcode, body + b"\xaa" * (4 * slack[i % len(slack)]))
        for i, (opcode, body) in enumerate(messages)
    ]
    size = 6 * per_block
    chunk.blocks = [loose[i : i + size] for i in range(0, len(loose), size)]
    chunk.blocks[0] = front + chunk.blocks[0]
    assert assert_same(chunk.build())
