"""Large vectors lie on the disk once, in memory within the cache; all files count."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey, ChunkMeta, chunk_path, encode_chunk
from wm_core.store.index import index_path
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.store.retention import keep_within, used_by

SIZE = 20_000
SPEC = Spec(
    images={},
    vectors={"scan": VectorSpec(size=SIZE), "pose": VectorSpec(size=3)},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)


def scan(number):
    """(20000,) float32 that repeats within a scan, so that it compresses as real ones do."""
    return np.tile(np.arange(20, dtype=np.float32), SIZE // 20) + np.float32(number)


def fill(root, chunks, *, steps=32, spoil=()):
    ledger, session = Ledger(root / LEDGER_NAME), uuid.uuid4().hex
    for seq in range(chunks):
        meta = ChunkMeta(
            robot="rover", session=session, seq=seq, spec=SPEC, first_step=seq * steps, steps=steps
        )
        numbers = range(seq * steps, (seq + 1) * steps)
        made = [
            Step(
                obs={
                    "scan": np.where(np.arange(SIZE) == 7, np.nan, scan(n)).astype(np.float32)
                    if n in spoil
                    else scan(n),
                    "pose": np.full(3, n, np.float32),
                },
                action=np.zeros(1, np.float32),
                reward=float(n),
                is_first=n == 0,
                is_last=False,
                is_terminal=False,
                stamp_ns=1_000_000_000 + n * 50_000_000,
                # not in every step, so that a block holds messages of two sizes
                requested_action=np.zeros(1, np.float32) if n % 5 == 0 else None,
            )
            for n in numbers
        ]
        key = ChunkKey("rover", session, seq)
        assert ingest(root, ledger, key, encode_chunk(made, meta)).kind == "stored"
    return ledger


@pytest.fixture
def root(tmp_path):
    return tmp_path / "store"


def test_a_large_vector_comes_back_as_itself_and_lies_there_once(root):
    ledger = fill(root, 3)
    chunks = sum(row.bytes for row in ledger.since(0))
    indices = sum(index_path(root, row.key).stat().st_size for row in ledger.since(0))
    assert indices < chunks / 4  # it was four hundred times as much
    store = Store(root, cache_bytes=10**7)
    store.refresh()
    rows = np.random.default_rng(0).permutation(96).reshape(12, 8)
    steps = store.read(rows)
    obs = store.observe(steps)
    assert obs["scan"].dtype == np.float32
    np.testing.assert_array_equal(obs["scan"][..., 0], rows)
    np.testing.assert_array_equal(obs["scan"][3, 2], scan(rows[3, 2]))
    np.testing.assert_array_equal(obs["pose"][..., 1], rows)
    assert list(obs) == ["scan", "pose"]
    assert steps.dtype.itemsize < 300  # of memory that no bound holds, for a step of 80 kB
    assert store.cache.nbytes <= 10**7
    store.close()
    ledger.close()


def test_a_small_cache_bounds_large_vectors_too(root):
    fill(root, 2).close()
    store = Store(root, cache_bytes=0)
    store.refresh()
    obs = store.observe(store.read(np.arange(64)))
    np.testing.assert_array_equal(obs["scan"][:, 0], np.arange(64))
    assert store.cache.nbytes == 0
    store.close()


def test_a_number_of_a_large_vector_that_is_not_finite_is_counted_and_named(root):
    fill(root, 1, spoil=(4, 9)).close()
    store = Store(root, cache_bytes=0)
    store.refresh()
    assert [s.length for s in store.segments] == [4, 4, 22]
    assert store.invalid.by_reason == {"observation": 2}
    assert "scan" in store.invalid.worst()
    store.close()


def test_an_index_that_holds_large_vectors_is_made_again_without_them(root):
    ledger = fill(root, 1)
    (row,) = ledger.since(0)
    path = index_path(root, row.key)
    small = path.stat().st_size
    path.write_bytes(path.read_bytes() + bytes(4 * SIZE * row.steps))  # as one of before
    store = Store(root, cache_bytes=0, keep_indices=True)
    store.refresh()
    assert path.stat().st_size == small
    assert len(store.segments) == 1
    store.close()
    ledger.close()


def on_disk(root):
    """Bytes of the disk, as ``du`` counts them."""
    return sum(path.lstat().st_blocks * 512 for path in root.rglob("*") if path.is_file())


def test_the_bound_holds_for_all_files_of_the_store_as_the_disk_counts_them(root):
    ledger = fill(root, 24, steps=8)
    junk = root / "quarantine.d" / "rover" / "old.refused"
    junk.parent.mkdir(parents=True)
    junk.write_bytes(bytes(50_000))
    for row in ledger.since(0, limit=6):  # older ones had larger indices
        index_path(root, row.key).write_bytes(bytes(200_000))
    assert used_by(root).all == on_disk(root)
    for bound in (on_disk(root) - 1, on_disk(root) // 2):
        assert keep_within(root, ledger, bound) > 0
        ledger.fold()
        assert on_disk(root) <= bound
        kept = ledger.since(ledger.pruned_through())
        assert kept
        assert all(chunk_path(root, row.key).exists() for row in kept)
    assert keep_within(root, ledger, on_disk(root)) == 0
    ledger.close()
