"""Chunks of many senders become durable in groups, and no chunk of a group harms another."""

from __future__ import annotations

import hashlib
import os
import threading
from uuid import uuid4

import pytest

from wm_core.format.chunk import ChunkMeta, chunk_path, encode_chunk
from wm_core.store import commit
from wm_core.store.index import index_path
from wm_core.store.intake import StoreIntake
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reconcile import Reconciled, reconcile

DEADLINE_S = 120.0


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "store" / LEDGER_NAME)
    yield ledger
    ledger.close()


@pytest.fixture
def start(tmp_path, ledger):
    """Starts intakes of one store, and closes them when the test ends."""
    started = []

    def make(**settings):
        started.append(StoreIntake(tmp_path / "store", ledger, **settings))
        return started[-1]

    yield make
    for intake in started:
        intake.close()


def answers(offers):
    return [offer.result(DEADLINE_S).kind for offer in offers]


def test_what_is_answered_is_in_ledger_and_folder_bit_for_bit(start, ledger, make_chunk, tmp_path):
    intake, session = start(), uuid4().hex
    chunks = [make_chunk(seq, session=session) for seq in range(10)]
    chunks += [make_chunk(robot=f"rover-{n}") for n in range(10)]
    assert answers([intake.offer(*chunk) for chunk in chunks]) == ["stored"] * 20
    for key, data, sha256 in chunks:
        assert ledger.find(key).sha256 == sha256
        assert chunk_path(tmp_path / "store", key).read_bytes() == data
    assert answers([intake.offer(*chunk) for chunk in chunks]) == ["known"] * 20
    assert intake.counts()["chunks"] == 20
    assert intake.backlog() == (0, 0)


def test_chunks_that_come_at_once_share_a_commit(start, ledger, make_chunk, wait_until):
    intake = start()
    chunks = [make_chunk() for _ in range(40)]
    with ledger.writing():  # no one else can commit: what comes meanwhile gathers
        offers = [intake.offer(*chunk) for chunk in chunks]
        wait_until(lambda: intake.checked == 40)
    assert answers(offers) == ["stored"] * 40
    assert intake.groups <= 3
    assert intake.grouped == 40


def test_a_refused_chunk_harms_no_other_of_its_group(start, ledger, make_chunk):
    intake = start()
    good = [make_chunk() for _ in range(5)]
    key, data, sha256 = make_chunk()
    _, other, other_sha256 = make_chunk(session=key.session, salt=1)
    with ledger.writing():
        offers = [intake.offer(*chunk) for chunk in good[:3]]
        offers += [intake.offer(good[3][0], good[3][1], "0" * 64)]
        offers += [intake.offer(key, data, sha256), intake.offer(key, other, other_sha256)]
        offers += [intake.offer(key, data, sha256), intake.offer(*good[4])]
    kinds = answers(offers)
    assert kinds[:4] == ["stored"] * 3 + ["damaged"]
    assert sorted(kinds[4:7]) in (["conflict", "known", "stored"], ["conflict"] * 2 + ["stored"])
    assert kinds[7] == "stored"
    assert ledger.counts()["chunks"] == 5


def test_a_file_that_cannot_be_written_costs_its_own_chunk_alone(
    start, ledger, make_chunk, tmp_path
):
    intake = start()
    chunks = [make_chunk(robot=f"rover-{n}") for n in range(5)]
    (tmp_path / "store" / "rover-2").write_text("a file where a folder has to be")
    with ledger.writing():
        offers = [intake.offer(*chunk) for chunk in chunks]
    kinds = answers(offers)
    assert kinds.count("stored") == 4
    assert kinds[2] == "busy"
    assert ledger.find(chunks[2][0]) is None
    (tmp_path / "store" / "rover-2").unlink()
    assert answers([intake.offer(*chunks[2])]) == ["stored"]


def test_no_answer_comes_before_file_folder_and_row_are_synced(
    start, ledger, make_chunk, tmp_path, monkeypatch
):
    synced, fsync = [], os.fsync

    def note(handle):
        synced.append(os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    key, data, sha256 = make_chunk()
    path = chunk_path(tmp_path / "store", key)
    at_answer = []
    offer = start().offer(key, data, sha256)
    offer.add_done_callback(lambda _: at_answer.append((list(synced), ledger.find(key))))
    assert offer.result(DEADLINE_S).kind == "stored"
    (before, row), *_ = at_answer or [(synced, ledger.find(key))]
    assert str(path) in before
    assert str(path.parent) in before
    assert str(path.parent.parent) in before
    assert row is not None


def test_closing_finishes_what_was_offered_and_refuses_what_comes_later(start, make_chunk):
    intake = start()
    offers = [intake.offer(*make_chunk()) for _ in range(20)]
    intake.close()
    intake.close()
    assert all(offer.done() for offer in offers)
    assert answers(offers) == ["stored"] * 20
    assert intake.offer(*make_chunk()).result(0).kind == "busy"
    assert not [t for t in threading.enumerate() if t.name.startswith("intake")]


def test_an_answer_cannot_be_cancelled_by_who_waits_for_it(start, ledger, make_chunk):
    chunk = make_chunk()
    offer = start().offer(*chunk)
    assert not offer.cancel()
    assert offer.result(DEADLINE_S).kind == "stored"


def test_the_index_follows_the_answer_and_is_made_anew_where_it_is_missing(
    start, make_chunk, tmp_path, wait_until
):
    key, data, sha256 = make_chunk()
    assert start().offer(key, data, sha256).result(DEADLINE_S).ok
    wait_until(index_path(tmp_path / "store", key).exists)


def test_a_whole_group_is_refused_where_the_ledger_is_held_and_nothing_is_left(
    start, ledger, make_chunk, tmp_path, monkeypatch
):
    def held(*_):
        raise commit.sqlite3.OperationalError("database is locked")

    intake = start()
    monkeypatch.setattr(ledger, "add", held)
    offers = [intake.offer(*make_chunk()) for _ in range(3)]
    assert answers(offers) == ["busy"] * 3
    assert not list((tmp_path / "store").rglob("*.mcap*"))
    monkeypatch.undo()
    assert answers([intake.offer(*make_chunk())]) == ["stored"]
    intake.close()  # indexes are written after the answer
    assert reconcile(tmp_path / "store", ledger) == Reconciled()


def test_usage_counts_what_is_stored_of_a_robot_and_not_what_was_evicted(
    start, ledger, make_chunk
):
    intake = start()
    chunks = [make_chunk() for _ in range(3)]
    for chunk in chunks:
        assert answers([intake.offer(*chunk)]) == ["stored"]
    assert intake.usage("rover") == sum(len(data) for _, data, _ in chunks)
    assert intake.usage("other") == 0
    ledger.mark_pruned(ledger.find(chunks[0][0]).arrival)
    assert intake.usage("rover") == sum(len(data) for _, data, _ in chunks[1:])
    assert answers([intake.offer(*make_chunk())]) == ["stored"]
    assert intake.usage("rover") == ledger.counts()["bytes"] - len(chunks[0][1])


def test_chunks_of_another_spec_than_the_pinned_one_are_refused(start, spec, make_step, ledger):
    intake = start(spec=spec)

    def chunk(of):
        session = uuid4().hex
        meta = ChunkMeta(robot="rover", session=session, seq=0, spec=of, first_step=0, steps=1)
        data = encode_chunk([make_step(0)], meta)
        return meta.key, data, hashlib.sha256(data).hexdigest()

    foreign = chunk(spec.model_copy(update={"period_s": 0.123}))
    verdict = intake.offer(*foreign).result(DEADLINE_S)
    assert verdict.kind == "conflict"
    assert "period_s" in verdict.reason
    assert answers([intake.offer(*chunk(spec))]) == ["stored"]
    assert ledger.counts()["quarantined"] == 1
