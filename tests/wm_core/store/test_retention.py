"""Chunks that were evicted for room stay evicted, and never count as lost."""

from __future__ import annotations

import threading

import numpy as np

from wm_core.format.chunk import check_chunk
from wm_core.link.audit import audit
from wm_core.replay.sampler import Sampler
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reconcile import reconcile
from wm_core.store.retention import keep_within, prune, used_by


def test_a_pruned_chunk_that_is_sent_again_is_known_and_not_stored_again(tagged):
    [old, _] = tagged.fill(2)
    data = old.read_bytes()
    prune(tagged.root, tagged.ledger, 1)
    key = check_chunk(data, None, max_bytes=len(data)).meta.key
    verdict = ingest(tagged.root, tagged.ledger, key, data)
    assert verdict.kind == "known"
    assert not old.exists()


def test_files_that_a_killed_pruner_left_are_removed_at_the_next_start(tagged):
    [old, new] = tagged.fill(2)
    index = old.with_suffix(".idx")
    left = {path: path.read_bytes() for path in (old, index)}
    prune(tagged.root, tagged.ledger, 1)
    assert not old.exists()
    assert not index.exists()
    for path, data in left.items():
        path.write_bytes(data)
    found = reconcile(tagged.root, tagged.ledger)
    assert (found.adopted, found.missing) == (0, 0)
    assert (old.exists(), index.exists(), new.exists()) == (False, False, True)


def test_nothing_that_was_pruned_counts_as_lost(tagged):
    tagged.fill(4)
    before = audit(tagged.root)
    assert (before.chunks_acked, before.steps_stored) == (4, 80)
    prune(tagged.root, tagged.ledger, 1)
    after = audit(tagged.root)
    assert (after.chunks_sent, after.chunks_lost, after.steps_stored) == (4, 0, 20)
    assert after.sessions[0].pruned == (0, 1, 2)


def test_all_of_the_store_fits_its_bound_and_not_only_the_chunks(tagged):
    paths = tagged.fill(40)
    tagged.ledger.fold()
    whole = used_by(tagged.root).all
    chunks = sum(path.stat().st_blocks * 512 for path in paths)
    assert chunks < whole
    assert keep_within(tagged.root, tagged.ledger, whole) == 0
    bound = whole - chunks // 2
    assert keep_within(tagged.root, tagged.ledger, bound) > 0
    tagged.ledger.fold()
    assert used_by(tagged.root).all <= bound
    assert keep_within(tagged.root, tagged.ledger, 1) > 0
    assert [path.exists() for path in paths] == [False] * 39 + [True]


def test_two_learners_evict_from_one_store_while_both_sample_it(tagged):
    tagged.fill(30)
    stores = [tagged.open(cache_bytes=0) for _ in range(2)]
    drawn, errors = [], []

    def learn(store, bound):
        ledger = Ledger(tagged.root / LEDGER_NAME)
        sampler = Sampler(store, batch=4, length=8, rng=np.random.default_rng(bound))
        try:
            for turn in range(12):
                batch = sampler.sample()
                numbers = batch.obs["proprio"][..., 0]
                assert (np.diff(numbers, axis=1) == 1).all()
                assert (batch.obs["image"][..., 0, 0, 0] == numbers % 256).all()
                drawn.append(numbers)
                size = ledger.counts()["bytes"] // 30
                prune(tagged.root, ledger, size * max(2, 28 - 2 * turn - bound))
                store.refresh()
        except Exception as error:
            errors.append(error)
        finally:
            ledger.close()

    threads = [threading.Thread(target=learn, args=(s, n)) for n, s in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(drawn) == 24
    assert reconcile(tagged.root, tagged.ledger).missing == 0
    assert len(list(tagged.root.glob("*/*/*.mcap"))) == len(
        tagged.ledger.since(tagged.ledger.pruned_through())
    )


def test_an_eviction_that_the_system_refuses_stops_no_learner(tagged):
    paths = tagged.fill(4)
    paths[1].unlink()
    paths[1].mkdir()
    assert prune(tagged.root, tagged.ledger, 1) == 3
    assert [path.exists() for path in paths] == [False, True, False, True]
