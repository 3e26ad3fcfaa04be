"""Steps, chunks and a real service on a free port of the loopback."""

from __future__ import annotations

import contextlib
import hashlib
import time
from uuid import uuid4

import numpy as np
import pytest

from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.link.chunk import ChunkKey, ChunkMeta, encode_chunk
from wm_core.link.service import ServeSettings, Service


@pytest.fixture
def spec():
    images = {"image": ImageSpec(height=8, width=8)}
    return Spec(images=images, action=ActionSpec(low=(-1.0,), high=(1.0,)))


@pytest.fixture
def make_step(spec):
    """A step whose reward is its own number."""

    def make(number, **changes):
        rng = np.random.default_rng(number)
        fields = {
            "obs": {"image": rng.integers(0, 256, (8, 8, 3), np.uint8)},
            "action": np.zeros(1, np.float32),
            "reward": float(number),
            "is_first": number == 0,
            "is_last": False,
            "is_terminal": False,
            "stamp_ns": 10**9 + number,
        }
        return Step(**fields | changes)

    return make


@pytest.fixture
def make_chunk(spec, make_step):
    """(key, data, sha256) of a chunk; ``salt`` makes other bytes under the same key."""

    def make(seq=0, *, robot="rover", session=None, steps=3, salt=0):
        key = ChunkKey(robot, session or uuid4().hex, seq)
        meta = ChunkMeta(
            robot=key.robot,
            session=key.session,
            seq=seq,
            spec=spec,
            first_step=seq * steps,
            steps=steps,
            dropped={"salt": salt},
        )
        data = encode_chunk([make_step(seq * steps + i) for i in range(steps)], meta)
        return key, data, hashlib.sha256(data).hexdigest()

    return make


@pytest.fixture
def serve(tmp_path):
    """Starts services in this process, on ``tmp_path / "trainer"`` unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            defaults = {"root": tmp_path / "trainer", "port": 0, "min_free_bytes": 0}
            service = Service(ServeSettings(**defaults | settings)).start()
            stack.callback(service.close)
            return service

        yield start


@pytest.fixture
def wait_until():
    """Waits for a condition with a deadline."""

    def wait(condition, timeout_s=30.0):
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "the condition did not come true in time"
            time.sleep(0.01)

    return wait
