"""The account of a campaign finds what is lost, doubled, changed or missing without a count."""

import hashlib
from collections import Counter

import pytest

from benchmarks.chaos.account import (
    Account,
    Injured,
    check_acknowledged,
    check_session,
    check_store,
    name,
)
from benchmarks.chaos.steps import SPEC, Progress, ProgressFile, make_step
from wm_core.format.chunk import ChunkKey, ChunkMeta, chunk_path, encode_chunk
from wm_core.link.robot.journal import Journal, SpoolSession
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger

SESSION = "0" * 31 + "1"


@pytest.fixture
def store(tmp_path):
    """Stores chunks of four steps; gives folder, and (path, hash) of each acknowledgement."""
    root, acks = tmp_path / "store", []
    ledger = Ledger(root / LEDGER_NAME)

    def add(seq, first, shows=None, by_hand=False):
        key = ChunkKey("rover0", SESSION, seq)
        meta = ChunkMeta(
            robot=key.robot, session=SESSION, seq=seq, spec=SPEC, first_step=first, steps=4
        )
        begin = first if shows is None else shows
        steps = [make_step("rover0", SESSION, n) for n in range(begin, begin + 4)]
        data = encode_chunk(steps, meta)
        if by_hand:  # no check of the store is asked
            chunk_path(root, key).write_bytes(data)
            ledger.add(key, hashlib.sha256(data).hexdigest(), len(data), meta)
        else:
            assert ingest(root, ledger, key, data).kind == "stored"
        acks.append((name(key), ledger.find(key).sha256))

    add(0, 0)
    add(1, 4)
    yield root, acks, add
    ledger.close()


def accounted(root, acks):
    account = Account()
    check_acknowledged(root, acks, account)
    check_store(root, account)
    return account


def test_a_whole_store_has_no_faults(store):
    root, acks, _ = store
    account = accounted(root, acks)
    assert account.faults == []
    assert (account.chunks, account.steps_stored) == (2, 8)


def test_a_flipped_bit_is_found(store):
    root, acks, _ = store
    path = chunk_path(root, ChunkKey("rover0", SESSION, 1))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    account = accounted(root, acks)
    assert (account.lost, account.corrupt) == (1, 1)


def test_an_acknowledged_chunk_that_is_gone_is_found(store):
    root, acks, _ = store
    assert accounted(root, [*acks, (f"rover0/{SESSION}/2", "0" * 64)]).lost == 1


def test_a_step_that_is_stored_twice_is_found(store):
    root, acks, add = store
    add(2, 4, by_hand=True)
    account = accounted(root, acks)
    assert account.twice == 4


def test_a_step_with_the_pixels_of_another_is_found(store):
    root, acks, add = store
    add(2, 8, shows=12)
    assert accounted(root, acks).corrupt == 1


@pytest.mark.parametrize(
    ("stored", "sealed", "dropped", "injured", "uncounted"),
    [
        (range(12), 12, 0, {}, 0),
        ([*range(4), *range(8, 12)], 12, 0, {}, 4),  # four are missing within
        ([*range(4), *range(8, 12)], 12, 4, {}, 0),  # the robot counted them
        ([*range(4), *range(8, 12)], 12, 0, {1: (4, 4)}, 0),  # the campaign destroyed them
        (range(8), 8, 0, {}, 0),  # the newest were in memory when it was killed
        (range(8), 12, 0, {}, 4),  # the newest were called durable
    ],
)
def test_every_missing_step_needs_a_count(tmp_path, stored, sealed, dropped, injured, uncounted):
    session = SpoolSession(tmp_path / "rover0" / SESSION)
    session.path.mkdir(parents=True)
    reasons = {"spool_full": dropped} if dropped else {}
    session.write_journal(Journal(robot="rover0", session=SESSION, dropped_steps=reasons))
    progress = tmp_path / f"rover0.{SESSION}.progress"
    ProgressFile(progress).write(Progress(put=12, sealed=sealed, dropped=dropped))
    hurt = {
        f"rover0/{SESSION}/{seq}": Injured(first_step=first, steps=steps)
        for seq, (first, steps) in injured.items()
    }
    account = Account()
    check_session(session, progress, Counter(stored), hurt, account)
    assert account.uncounted == uncounted
    assert bool(account.faults) == bool(uncounted)
