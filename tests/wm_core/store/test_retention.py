"""Chunks that were evicted for room stay evicted, and never count as lost."""

from __future__ import annotations

from wm_core.format.chunk import check_chunk
from wm_core.link.audit import audit
from wm_core.store.ingest import ingest
from wm_core.store.reconcile import reconcile
from wm_core.store.retention import prune


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
