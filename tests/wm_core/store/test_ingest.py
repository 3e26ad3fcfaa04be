"""The store takes a chunk once, and nothing that comes can touch what it has."""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import subprocess
import sys
import threading

import pytest

from wm_core.contract.errors import StoreError
from wm_core.contract.files import write_durably
from wm_core.format.chunk import chunk_path
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.quarantine import QUARANTINE
from wm_core.store.reconcile import Reconciled, reconcile


def test_the_same_chunk_is_stored_once(store, ledger, make_chunk):
    key, data, sha256 = make_chunk(steps=5)
    assert ingest(store, ledger, key, data, sha256).kind == "stored"
    assert ingest(store, ledger, key, data, sha256).kind == "known"
    (row,) = ledger.since(0)
    assert (row.key, row.sha256, row.bytes, row.steps) == (key, sha256, len(data), 5)
    assert chunk_path(store, key).read_bytes() == data


def test_other_bytes_under_a_known_key_are_quarantined_and_the_stored_ones_stay(
    store, ledger, make_chunk
):
    key, data, sha256 = make_chunk()
    _, other, other_sha256 = make_chunk(session=key.session, salt=1)
    ingest(store, ledger, key, data, sha256)
    before = chunk_path(store, key).stat()
    verdict = ingest(store, ledger, key, other, other_sha256)
    assert verdict.kind == "conflict"
    assert sha256 in verdict.reason
    assert other_sha256 in verdict.reason
    after = chunk_path(store, key).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    (refused,) = ledger.refused()
    assert refused.reason == verdict.reason
    (kept,) = (store / QUARANTINE).glob("*/*/*")
    assert kept.read_bytes() == other


def test_damaged_bytes_are_quarantined_once_with_the_reason(store, ledger, make_chunk):
    key, data, sha256 = make_chunk()
    cut = data[: len(data) // 2]
    for _ in range(2):  # as announced, and with a hash that fits the damage
        assert ingest(store, ledger, key, cut, sha256).kind == "damaged"
        verdict = ingest(store, ledger, key, cut, hashlib.sha256(cut).hexdigest())
        assert verdict.kind == "damaged"
    assert ledger.counts()["chunks"] == 0
    assert ledger.counts()["quarantined"] == 1
    assert ingest(store, ledger, key, data, sha256).kind == "stored"


def test_a_chunk_sent_under_another_key_is_refused(store, ledger, make_chunk):
    key, data, sha256 = make_chunk(robot="rover")
    verdict = ingest(store, ledger, key._replace(robot="other"), data, sha256)
    assert verdict.kind == "damaged"
    assert "rover" in verdict.reason


def test_a_chunk_above_the_bound_is_not_looked_at(store, ledger, make_chunk):
    key, data, sha256 = make_chunk()
    verdict = ingest(store, ledger, key, data, sha256, max_bytes=len(data) - 1)
    assert verdict.kind == "too_large"
    assert ledger.counts()["quarantined"] == 0


def test_a_file_that_vanished_is_taken_again(store, ledger, make_chunk):
    key, data, sha256 = make_chunk()
    ingest(store, ledger, key, data, sha256)
    chunk_path(store, key).unlink()
    assert ingest(store, ledger, key, data, sha256).ok
    assert chunk_path(store, key).read_bytes() == data
    assert ledger.counts()["chunks"] == 1


def test_threads_that_bring_the_same_chunk_store_it_once(store, ledger, make_chunk):
    key, data, sha256 = make_chunk()
    kinds = []
    threads = [
        threading.Thread(
            target=lambda: kinds.append(ingest(store, ledger, key, data, sha256).kind)
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(kinds) == ["known"] * 7 + ["stored"]


def bring(store, chunks):
    ledger = Ledger(store / LEDGER_NAME)
    for chunk in chunks:
        ingest(store, ledger, *chunk)
    ledger.close()


def test_two_processes_and_a_reader_share_a_store(store, make_chunk):
    session = make_chunk()[0].session
    chunks = [make_chunk(seq, session=session, steps=1) for seq in range(20)]
    rivals = [make_chunk(seq, session=session, steps=1, salt=1) for seq in range(20)]
    fork = multiprocessing.get_context("spawn")
    writers = [fork.Process(target=bring, args=(store, c)) for c in (chunks, rivals)]
    for writer in writers:
        writer.start()
    reader, seen = Ledger(store / LEDGER_NAME), []
    while any(writer.is_alive() for writer in writers) or len(seen) < 20:
        seen += reader.since(seen[-1].arrival if seen else 0)
        assert all(w.exitcode in (None, 0) for w in writers)
    for writer in writers:
        writer.join()
    assert sorted(row.seq for row in seen) == list(range(20))
    for row in seen:  # whoever came first, row and file agree
        data = chunk_path(store, row.key).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row.sha256
    assert reader.counts()["quarantined"] == 20
    reader.close()


def test_a_file_without_a_row_is_adopted_and_rubbish_is_quarantined(store, ledger, make_chunk):
    key, data, sha256 = make_chunk()
    rubbish = key._replace(seq=1)
    write_durably(chunk_path(store, key), data)
    write_durably(chunk_path(store, rubbish), b"no chunk")
    unfinished = chunk_path(store, key).with_name("00000002.mcap.0123abcd.tmp")
    unfinished.write_bytes(data)
    assert reconcile(store, ledger) == Reconciled(adopted=1, quarantined=1, unfinished=1)
    assert ingest(store, ledger, key, data, sha256).kind == "known"
    assert not unfinished.exists()
    assert not chunk_path(store, rubbish).exists()
    assert reconcile(store, ledger) == Reconciled()


def test_a_lost_ledger_is_rebuilt_from_the_files(store, make_chunk):
    first = Ledger(store / LEDGER_NAME)
    chunks = [make_chunk() for _ in range(3)]
    for chunk in chunks:
        ingest(store, first, *chunk)
    first.close()
    for path in store.glob(f"{LEDGER_NAME}*"):
        path.unlink()
    second = Ledger(store / LEDGER_NAME)
    assert reconcile(store, second).adopted == 3
    assert {row.sha256 for row in second.since(0)} == {sha256 for _, _, sha256 in chunks}
    second.close()


def test_a_row_whose_file_is_gone_is_reported(store, ledger, make_chunk):
    key, data, sha256 = make_chunk()
    ingest(store, ledger, key, data, sha256)
    chunk_path(store, key).unlink()
    assert reconcile(store, ledger).missing == 1


def test_a_file_that_is_no_ledger_is_refused_with_advice(store):
    store.mkdir()
    (store / LEDGER_NAME).write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="wm store rebuild"):
        Ledger(store / LEDGER_NAME)


def test_a_lack_of_room_is_reported_and_leaves_no_file(store, ledger, make_chunk):
    key, data, sha256 = make_chunk()
    assert ingest(store, ledger, *make_chunk()).kind == "stored"
    verdict = ingest(store, ledger, key, data, sha256, min_free_bytes=1 << 60)
    assert verdict.kind == "no_room"
    assert "must stay so" in verdict.reason
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) - 1, limits[1]))
    try:
        verdict = ingest(store, ledger, key, data, sha256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert verdict.kind == "no_room"
    assert len(list(store.glob("*/*/*"))) == 2  # the first chunk and its index
    assert ingest(store, ledger, key, data, sha256).kind == "stored"


def test_a_full_disk_stops_a_store_without_harm(tmp_path, make_chunk):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        store = disk / "store"
        ledger = Ledger(store / LEDGER_NAME)
        chunks = [make_chunk(steps=60) for _ in range(30)]
        kinds = [ingest(store, ledger, *c, min_free_bytes=-(1 << 60)).kind for c in chunks]
        full = kinds.index("no_room")
        assert 0 < full < 30
        assert set(kinds[:full]) == {"stored"}
        assert ledger.counts()["chunks"] == kinds.count("stored")
        ledger.close()
        assert not list(store.rglob("*.tmp"))
        gone = list(store.glob("*/*/*.mcap"))[:5]
        for path in gone:  # room again: everything can go on
            path.unlink()
        ledger = Ledger(store / LEDGER_NAME)
        assert reconcile(store, ledger) == Reconciled(missing=5)
        for row in ledger.since(0):
            path = chunk_path(store, row.key)
            assert path in gone or hashlib.sha256(path.read_bytes()).hexdigest() == row.sha256
        assert ingest(store, ledger, *chunks[-1], min_free_bytes=-(1 << 60)).kind == "stored"
        ledger.close()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_ledger_keeps_what_a_killed_process_committed(tmp_path, make_chunk):
    store = tmp_path / "store"
    key, data, sha256 = make_chunk()
    source = tmp_path / "chunk.mcap"
    source.write_bytes(data)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from wm_core.format.chunk import ChunkKey\n"
        "from wm_core.store.ingest import ingest\n"
        "from wm_core.store.ledger import LEDGER_NAME, Ledger\n"
        "store, source, robot, session, sha256 = sys.argv[1:]\n"
        "ledger = Ledger(Path(store) / LEDGER_NAME)\n"
        "key = ChunkKey(robot, session, 0)\n"
        "ingest(Path(store), ledger, key, Path(source).read_bytes(), sha256)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    args = [sys.executable, "-c", script, store, source, key.robot, key.session, sha256]
    assert subprocess.run(args, check=False).returncode == -9
    ledger = Ledger(store / LEDGER_NAME)
    assert reconcile(store, ledger) == Reconciled()
    assert ingest(store, ledger, key, data, sha256).kind == "known"
    ledger.close()
