"""A store of a dot that wanders; nobody has said what is good."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.wm_core.stored import store_chunk
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.contract.step import Step, is_usable
from wm_core.format.chunk import ChunkKey
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store

SPEC = Spec(
    images={"image": ImageSpec(height=16, width=16)},
    vectors={"place": VectorSpec(size=2, names=("x", "y"))},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)
SESSION, LENGTH, CHUNK = f"{7:032x}", 20, 16


def dot_step(number: int, rng: np.random.Generator) -> Step:
    """Step ``number`` of the session: the dot is anywhere, x from -1 to 1."""
    at, x = number % LENGTH, float(rng.uniform(-1, 1))
    image = np.full((16, 16, 3), 90, np.uint8)
    column = round((x + 1) * 6)
    image[6:10, column : column + 4] = 255
    return Step(
        obs={"image": image, "place": np.array([x, number], np.float32)},
        action=np.array([number / 1000], np.float32),
        reward=math.nan if number == 25 else 0.0,
        is_first=at == 0,
        is_last=at == LENGTH - 1,
        is_terminal=number == 2 * LENGTH - 1,
        is_intervention=number == 5,
        is_valid=number not in (25, 33),  # the one for its reward, the other for another reason
        requested_action=np.array([0.5], np.float32) if number % 3 else None,
        policy_version=number // LENGTH,
        stamp_ns=10**9 + number * 50_000_000,
    )


@pytest.fixture
def dots(tmp_path):
    """A function that records episodes of 20 steps in chunks of 16, without those ``lacking``."""

    def record(episodes=6, *, lacking=(), name="dots"):
        root, rng = tmp_path / name, np.random.default_rng(0)
        steps = [dot_step(number, rng) for number in range(episodes * LENGTH)]
        ledger = Ledger(root / LEDGER_NAME)
        for seq in range(math.ceil(len(steps) / CHUNK)):
            part = steps[seq * CHUNK : (seq + 1) * CHUNK]
            part = [replace(s, is_valid=s.is_valid and is_usable(s, SPEC)) for s in part]
            key = ChunkKey("rover", SESSION, seq)
            if seq not in lacking:
                store_chunk(
                    root, ledger, key, part, SPEC, first_step=seq * CHUNK, task="wander",
                    dropped={"late": seq},
                )  # fmt: skip
        ledger.close()
        return root

    return record


@pytest.fixture
def opened():
    """A function that opens a store to read it."""
    made = []

    def make(root):
        made.append(Store(root, cache_bytes=1 << 20))
        made[-1].refresh()
        return made[-1]

    yield make
    for store in made:
        store.close()
