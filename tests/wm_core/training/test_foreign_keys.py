"""A copy of a store that was filled in another order finds the steps that the first one names."""

from __future__ import annotations

import contextlib

import numpy as np

from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.replay.sampler import ChosenWindows, Sampler
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training.foreign_keys import ForeignKeys


def sampler(store):
    rng = np.random.default_rng(0)
    return Sampler(store, batch=4, length=5, rng=rng, online_queue=False)


def copied(tagged, root, sessions):
    """A store in ``root`` that got the chunks of ``sessions`` in this order."""
    with contextlib.closing(Ledger(root / LEDGER_NAME)) as ledger:
        for session in sessions:
            key = ChunkKey("robot", f"{session:032x}", 0)
            ingest(root, ledger, key, chunk_path(tagged.root, key).read_bytes())
    store = Store(root, cache_bytes=10**6, spec=tagged.spec)
    store.refresh()
    return store


def test_windows_are_the_same_in_a_copy_of_another_order(tagged, tmp_path):
    for session in (0, 1):
        tagged.write(0, 100 * session, session=session)
    first = tagged.open()
    with contextlib.closing(copied(tagged, tmp_path / "copy", (1, 0))) as copy:
        assert copy.sessions == first.sessions[::-1]
        keys = ForeignKeys(copy)
        keys.told = first.sessions
        choosing, reading = sampler(first), sampler(copy)
        seen = set()
        for _ in range(5):
            choice = choosing.choose()
            own = ChosenWindows(keys.own(choice.first), choice.has_context)
            expected, read = choosing.read(choice), reading.read(own)
            np.testing.assert_array_equal(read.reward, expected.reward)
            np.testing.assert_array_equal(read.obs["image"], expected.obs["image"])
            seen |= set((choice.first >> 32).tolist())
        assert seen == {0, 1}


def test_a_session_that_a_copy_lacks_is_none_of_its_own(tagged, tmp_path):
    for session in (0, 1):
        tagged.write(0, 100 * session, session=session)
    first = tagged.open()
    with contextlib.closing(copied(tagged, tmp_path / "copy", (1,))) as copy:
        keys = ForeignKeys(copy)
        keys.told = first.sessions
        own = keys.own(np.array([(0 << 32) + 3, (1 << 32) + 103], np.int64))
        assert own.tolist() == [-1, (0 << 32) + 103]
        lacking = ChosenWindows(own[:1], np.array([True]))
        assert sampler(copy).read(lacking) is None
