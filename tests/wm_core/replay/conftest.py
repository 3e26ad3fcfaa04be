"""A store whose every step holds its own number, so that any mix-up shows."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.link.chunk import ChunkKey, ChunkMeta, chunk_path, encode_chunk
from wm_core.link.ingest import ingest
from wm_core.link.ledger import LEDGER_NAME, Ledger
from wm_core.replay.store import Store

SPEC = Spec(
    images={
        "image": ImageSpec(height=4, width=6),
        "wrist": ImageSpec(height=3, width=3, channels=1),
    },
    vectors={"proprio": VectorSpec(size=2)},
    action=ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0)),
)


def tagged_step(number, *, episode, invalid):
    """A step that says ``number`` wherever it can; episodes begin at multiples of ``episode``."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[:] = (number % 256, number // 256, 7)
    return Step(
        obs={
            "image": image,
            "wrist": np.full((3, 3, 1), number % 251, np.uint8),
            "proprio": np.array([number, -number], np.float32),
        },
        action=np.array([number, -number], np.float32) / 65536,
        reward=float(number),
        is_first=number % episode == 0,
        is_last=number % episode == episode - 1,
        is_terminal=number % (2 * episode) == episode - 1,
        is_valid=number not in invalid,
        wish=np.zeros(2, np.float32) if number % 5 == 0 else None,  # frames of two sizes
        policy_version=number,
        stamp_ns=1_000_000_000 + number * 50_000_000,
    )


@pytest.fixture
def world(tmp_path):
    """Write chunks of tagged steps: ``world.write(seq, first_step, steps)``, then ``.open()``."""
    root = tmp_path / "store"
    ledger = Ledger(root / LEDGER_NAME)
    stores = []

    def write(seq, first, count=20, *, session=0, invalid=(), episode=1000, spec=SPEC, edit=None):
        steps = [
            tagged_step(n, episode=episode, invalid=invalid) for n in range(first, first + count)
        ]
        steps = [edit(step) for step in steps] if edit else steps
        key = ChunkKey("robot", f"{session:032x}", seq)
        meta = ChunkMeta(
            robot=key.robot,
            session=key.session,
            seq=seq,
            spec=spec,
            first_step=first,
            steps=count,
        )
        data = encode_chunk(steps, meta)
        verdict = ingest(root, ledger, key, data, hashlib.sha256(data).hexdigest())
        assert verdict.kind == "stored", verdict
        return chunk_path(root, key)

    def fill(chunks, *, count=20, **kwargs):
        return [write(seq, seq * count, count, **kwargs) for seq in range(chunks)]

    def open_store(cache_bytes=10**7):
        store = Store(root, cache_bytes=cache_bytes)
        stores.append(store)
        store.refresh()
        return store

    yield SimpleNamespace(root=root, ledger=ledger, write=write, fill=fill, open=open_store)
    for store in stores:
        store.close()
    ledger.close()
