"""The chunks of a played fleet are whole chunks under other keys."""

import numpy as np
import pytest

from benchmarks.fleet import STEPS, template
from wm_core.contract.errors import ChunkRefused
from wm_core.format.chunk import check_chunk


@pytest.fixture(scope="module")
def made():
    frames = list(np.random.default_rng(0).integers(0, 4, (STEPS, 64, 64, 3), np.uint8))
    return template(frames, "robot-0000")


def test_a_chunk_with_another_key_passes_every_check(made):
    chunk, meta = made
    moved = meta.model_copy(
        update={"robot": "robot-0777", "seq": 1234, "first_step": 1234 * STEPS}
    )
    columns = check_chunk(chunk.keyed(moved), moved.key, max_bytes=1 << 24)
    assert columns.meta == moved
    with pytest.raises(ChunkRefused):
        check_chunk(chunk.keyed(moved), meta.key, max_bytes=1 << 24)


def test_a_key_of_another_length_is_refused(made):
    chunk, meta = made
    with pytest.raises(ValueError, match="expected"):
        chunk.keyed(meta.model_copy(update={"robot": "r"}))
