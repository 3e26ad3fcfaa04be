"""Refused chunks are kept within bounds that one robot cannot use up for all."""

from __future__ import annotations

import hashlib
from uuid import uuid4

import pytest

from wm_core.contract.errors import MAX_REASON
from wm_core.format.chunk import ChunkKey
from wm_core.store import quarantine
from wm_core.store.ingest import ingest


@pytest.fixture
def refuse(store, ledger):
    """Sends bytes that are no chunk, under a new name of the robot."""

    def send(robot, data, seq=0, **settings):
        key = ChunkKey(robot, uuid4().hex, seq)
        sha256 = hashlib.sha256(data).hexdigest()
        assert ingest(store, ledger, key, data, sha256, **settings).kind == "damaged"

    return send


def kept(store):
    return sum(p.stat().st_size for p in store.glob("quarantine.d/**/*") if p.is_file())


def test_one_robot_fills_its_share_of_the_quarantine_and_not_that_of_others(
    store, ledger, refuse, monkeypatch
):
    monkeypatch.setattr(quarantine, "MAX_ROBOT_BYTES", 5_000)
    for n in range(10):
        refuse("bad", bytes([n]) * 1_000)
    assert ledger.quarantined("bad") == (10, 5_000)
    refuse("other", b"x" * 1_000)
    assert ledger.quarantined("other") == (1, 1_000)
    assert kept(store) == 6_000


def test_rows_of_refused_chunks_are_bounded_for_one_robot_and_for_all(
    store, ledger, refuse, monkeypatch
):
    monkeypatch.setattr(quarantine, "MAX_ROBOT_ROWS", 3)
    monkeypatch.setattr(quarantine, "MAX_QUARANTINE_ROWS", 5)
    for robot in ("one", "two", "three"):
        for n in range(5):
            refuse(robot, bytes([n]) * 10)
    assert ledger.quarantined("one")[0] == 3
    assert ledger.quarantined("two")[0] == 2
    assert ledger.quarantined() == (5, 50)


def test_the_quarantine_leaves_the_disk_its_room(store, ledger, refuse):
    refuse("rover", b"x" * 1_000, min_free_bytes=1 << 60)
    assert ledger.quarantined() == (1, 0)
    assert kept(store) == 0


def test_the_same_refused_bytes_are_kept_once_however_often_they_come(store, ledger):
    key, data = ChunkKey("rover", "0" * 32, 0), b"no chunk"
    for _ in range(20):
        assert ingest(store, ledger, key, data).kind == "damaged"
    assert ledger.quarantined() == (1, len(data))


def test_a_reason_is_one_printable_line_within_its_bound(ledger):
    ledger.add_refused(ChunkKey("rover", "0" * 32, 0), "0" * 64, 1, "\x1b[31m" + "long\n" * 10**6)
    (row,) = ledger.refused()
    assert len(row.reason) <= MAX_REASON
    assert row.reason.isprintable()
