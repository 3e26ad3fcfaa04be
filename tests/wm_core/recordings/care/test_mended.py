"""``wm data repair`` saves the whole blocks of damaged chunks and deletes nothing."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from tests.wm_core.recordings.care.conftest import SESSION, play
from wm_core.format.chunk import chunk_path, decode_chunk, encode_chunk
from wm_core.format.recording import read_recording
from wm_core.format.salvage import salvage
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store


def blocks_of(path):
    return read_recording(path.read_bytes()).blocks


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def stored(root):
    """Every step in the store by (session, index), and the metas of its chunks."""
    ledger = Ledger(root / LEDGER_NAME, read_only=True)
    steps, metas = {}, []
    for row in ledger.since(ledger.pruned_through()):
        meta, own = decode_chunk(chunk_path(root, row.key).read_bytes())
        metas.append(meta)
        for i, step in enumerate(own):
            steps[meta.session, meta.first_step + i] = step
    ledger.close()
    return steps, metas


def same(a, b):
    return (
        a.stamp_ns == b.stamp_ns
        and np.array_equal(a.action, b.action)
        and all(np.array_equal(a.obs[k], b.obs[k]) for k in a.obs)
        and (a.reward, a.is_first, a.is_last, a.is_terminal, a.policy_version)
        == (b.reward, b.is_first, b.is_last, b.is_terminal, b.policy_version)
    )


def everything(root):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def mended(wm_json):
    """Runs the repair: its status, what it says of each chunk, and its counts."""

    def call(*words):
        status, [*chunks, counts] = wm_json("repair", *words)
        return status, chunks, counts

    return call


def test_a_torn_chunk_keeps_its_whole_blocks_and_goes_on_from_the_one_before(
    record, root, file_of, mended, wm
):
    steps = play(2, 64)
    keys = record(steps, size=64)
    path = file_of(keys[1])
    block = blocks_of(path)[2]
    os.truncate(path, block.offset + block.size // 2)  # two of four blocks of 16 are whole
    torn = path.read_bytes()
    status, (chunk,), counts = mended()
    assert status == 1
    assert (chunk["fault"], chunk["steps"], chunk["saved"], chunk["lost"]) == ("torn", 64, 32, 32)
    assert counts["saved"] == 32
    found, metas = stored(root)
    assert sorted(index for _, index in found) == list(range(96))
    assert all(same(step, steps[index]) for (_, index), step in found.items())
    assert metas[-1].dropped == {"lost_in_repair": 32}
    store = Store(root, cache_bytes=1 << 20)
    store.refresh()
    assert [segment.length for segment in store.segments] == [96]
    store.close()
    (kept,) = (root / "quarantine.d").rglob("*.refused")
    assert kept.read_bytes() == torn
    assert wm("verify")[0] == 0
    assert mended()[0] == 0


def test_a_hole_in_the_middle_makes_two_pieces_and_no_window_spans_it(
    record, root, file_of, mended
):
    steps = play(1, 64)
    (key,) = record(steps, size=64)
    block = blocks_of(file_of(key))[1]
    flip(file_of(key), block.offset + block.size // 2)
    _, (chunk,), _ = mended()
    assert (chunk["fault"], chunk["saved"], chunk["pieces"]) == ("wrong_hash", 48, 2)
    found, metas = stored(root)
    assert sorted(index for _, index in found) == [*range(16), *range(32, 64)]
    assert all(same(step, steps[index]) for (_, index), step in found.items())
    assert metas[0].session == SESSION
    assert metas[1].session != SESSION
    store = Store(root, cache_bytes=1 << 20)
    store.refresh()
    assert sorted(segment.length for segment in store.segments) == [16, 32]
    store.close()


@pytest.mark.parametrize("where", ["first block", "meta", "header", "summary", "length"])
def test_damage_anywhere_costs_no_more_than_its_block(record, root, file_of, mended, where):
    steps = play(2, 64)
    keys = record(steps, size=64)
    path = file_of(keys[0])
    data, first = path.read_bytes(), blocks_of(path)[0]
    at = {
        "first block": first.offset + 40,
        "meta": data.index(b'"spec"') + 3,
        "header": 12,
        "summary": len(data) - 60,
        "length": first.offset + first.size + 3,  # of the record behind the first block
    }[where]
    flip(path, at)
    _, (chunk,), _ = mended()
    assert chunk["saved"] == (48 if where == "first block" else 64)
    found, _ = stored(root)
    assert all(same(step, steps[index]) for (_, index), step in found.items())


def test_of_every_cut_of_a_chunk_the_whole_blocks_come_back_as_they_were(record, file_of):
    steps = play(1, 40)
    (key,) = record(steps, size=40)
    data, blocks = file_of(key).read_bytes(), blocks_of(file_of(key))
    for cut in range(0, len(data), 211):
        got = salvage(data[:cut])
        whole = sum(block.offset + block.size <= cut for block in blocks)
        assert got.blocks == whole
        assert len(got.steps) == min(40, 16 * whole)
        assert all(same(step, steps[i]) for i, step in got.steps.items())


def test_a_bit_flipped_anywhere_never_gives_another_step(record, file_of):
    steps = play(1, 32)
    (key,) = record(steps, size=32)
    data = file_of(key).read_bytes()
    meta, _ = decode_chunk(data)
    rng, saved = np.random.default_rng(0), 0
    for at in rng.integers(0, len(data), 200).tolist():
        bad = bytearray(data)
        bad[at] ^= 1 << (at % 8)
        got = salvage(bytes(bad), meta)
        saved += len(got.steps)
        assert all(same(step, steps[i]) for i, step in got.steps.items())
    assert saved > 200 * 16 * 0.9


def test_a_dry_run_says_the_same_and_changes_nothing(record, root, file_of, mended):
    keys = record(play(2, 64), size=64)
    os.truncate(file_of(keys[1]), file_of(keys[1]).stat().st_size // 2)
    file_of(keys[0]).unlink()
    before = everything(root)
    status, chunks, counts = mended("--dry-run")
    assert (status, counts["dry_run"]) == (1, True)
    assert everything(root) == before
    assert mended()[1] == chunks


def test_what_cannot_be_read_stays_where_it_is(record, root, file_of, mended, wm):
    keys = record(play(2, 32), size=32)
    path = file_of(keys[1])
    path.write_bytes(os.urandom(5000))
    before = path.read_bytes()
    status, (chunk,), _ = mended()
    assert (status, chunk["saved"], chunk["lost"]) == (1, 0, 32)
    assert "stays where it is" in chunk["note"]
    assert path.read_bytes() == before
    ledger = Ledger(root / LEDGER_NAME, read_only=True)
    assert ledger.counts()["damaged"] == 1
    ledger.close()
    assert wm("verify")[0] == 1


def test_the_bytes_of_a_backup_still_replace_what_could_not_be_read(record, root, file_of, mended):
    keys = record(play(2, 32), size=32)
    path = file_of(keys[1])
    data = path.read_bytes()
    path.unlink()
    status, (chunk,), counts = mended()
    assert (status, chunk["fault"], counts["lost"]) == (1, "missing", 32)
    ledger = Ledger(root / LEDGER_NAME)
    assert ingest(root, ledger, keys[1], data).kind == "known"
    ledger.close()
    assert mended()[0] == 0


def test_a_damaged_ledger_is_made_anew_and_the_old_one_kept(record, root, file_of, mended):
    steps = play(2, 64)
    keys = record(steps, size=64)
    os.truncate(file_of(keys[1]), file_of(keys[1]).stat().st_size * 2 // 3)
    for suffix in ("-wal", "-shm"):
        (root / (LEDGER_NAME + suffix)).unlink(missing_ok=True)
    (root / LEDGER_NAME).write_bytes(b"SQLite format 3\x00" + os.urandom(8192))
    _, dry, _ = mended("--dry-run")
    _, chunks, counts = mended()
    assert counts["ledger"] != "sound"
    assert counts["copy"].endswith("damaged-1")
    assert [c["saved"] for c in chunks] == [c["saved"] for c in dry]
    assert 0 < chunks[0]["saved"] < 64
    found, _ = stored(root)
    assert len(found) == 64 + chunks[0]["saved"]
    assert all(same(step, steps[index]) for (_, index), step in found.items())


def test_a_torn_file_that_was_never_acknowledged_leaves_its_place_to_the_whole_chunk(
    record, root, file_of, mended, wm
):
    keys = record(play(2, 64), size=64)
    path = file_of(keys[1])
    whole = path.read_bytes()
    ledger = Ledger(root / LEDGER_NAME)
    ledger.remove(ledger.find(keys[1]).arrival)  # a power cut came before its row
    os.truncate(path, len(whole) * 2 // 3)
    for words in ((), (), ("--dry-run",)):
        status, chunks, counts = mended(*words)
        assert (status, chunks, counts["set_aside"]) == (0, [], 1)
    assert "never acknowledged" in wm("repair")[1]
    assert ingest(root, ledger, keys[1], whole).kind == "stored"  # the robot sends it again
    ledger.close()
    assert mended()[2]["set_aside"] == 0


def test_a_new_ledger_brings_back_what_it_set_aside_and_not_what_lay_there(
    record, root, file_of, mended, monkeypatch
):
    keys = record(play(3, 64), size=64)

    def lose(key):
        ledger = Ledger(root / LEDGER_NAME)
        ledger.remove(ledger.find(key).arrival)
        ledger.close()
        os.truncate(file_of(key), file_of(key).stat().st_size * 2 // 3)

    lose(keys[2])
    assert mended()[2]["set_aside"] == 1
    lose(keys[1])
    monkeypatch.setattr("wm_core.recordings.care.mend._fault_of_ledger", lambda root: "damaged")
    _, (chunk,), counts = mended()
    assert chunk["path"].endswith(".refused")
    assert "/00000001." in chunk["path"]
    assert 0 < chunk["saved"] < 64
    assert counts["set_aside"] == 1


def test_a_ledger_that_is_gone_is_made_anew(record, root, mended):
    record(play(2, 64))
    for path in root.glob(f"{LEDGER_NAME}*"):
        path.unlink()
    status, _, counts = mended()
    assert (status, counts["ledger"], counts["adopted"]) == (0, "it is gone", 0)
    assert len(stored(root)[0]) == 128


def test_a_repair_of_a_sound_store_leaves_nothing_behind(record, root, mended):
    record(play(2, 64))
    mended()
    before = everything(root)
    assert mended() == (0, [], {**mended()[2], "chunks": 0})
    assert {p for p in everything(root)} == set(before)


@pytest.mark.parametrize("lock", ["service.lock", "run.lock"])
def test_a_store_in_use_is_left_alone(record, root, run, file_of, wm, lock):
    keys = record(play(1, 64))
    os.truncate(file_of(keys[0]), 300)
    before = everything(root)
    with (run / lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, _, err = wm("repair")
        assert status == 2
        assert "by another process; stop it first" in err
        assert wm("repair", "--dry-run")[0] == 1
    assert everything(root) == before


def test_a_ledger_that_another_process_holds_is_said_in_one_line(
    record, root, file_of, wm, monkeypatch
):
    monkeypatch.setattr("wm_core.store.ledger._BUSY_S", 0.05)
    keys = record(play(1, 64))
    os.truncate(file_of(keys[0]), 300)
    other = sqlite3.connect(root / LEDGER_NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    status, _, err = wm("repair")
    assert status == 2
    assert "locked" in err
    assert err.count("\n") == 1
    other.execute("ROLLBACK")
    other.close()
    assert wm("repair")[0] == 1


def test_a_disk_that_takes_nothing_leaves_the_chunk_as_it_was(record, root, file_of, wm):
    keys = record(play(1, 64), size=64)
    path = file_of(keys[0])
    os.truncate(path, path.stat().st_size * 2 // 3)
    torn = path.read_bytes()
    (root / "quarantine.d").write_text("a file where the folder should be")
    status, _, err = wm("repair")
    assert status == 2
    assert "quarantine.d" in err
    assert path.read_bytes() == torn
    ledger = Ledger(root / LEDGER_NAME, read_only=True)
    assert ledger.find(keys[0]) is not None
    ledger.close()


def test_a_repaired_step_is_one_that_can_be_stored_again(record, file_of):
    (key,) = record(play(1, 20), size=20)
    data = file_of(key).read_bytes()
    meta, _ = decode_chunk(data)
    got = salvage(data)
    assert encode_chunk([got.steps[i] for i in range(20)], meta) == data


_KILLED = """
import os, sys
from pathlib import Path
from wm_core.recordings.care import mend

whole, calls = mend._store, []

def store(*args):
    calls.append(args)
    if len(calls) > int(sys.argv[2]):
        os._exit(9)
    whole(*args)

mend._store = store
mend.repair_store(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("stored_before", [0, 1])
def test_a_repair_that_is_killed_is_finished_by_the_next(
    record, root, file_of, mended, wm, stored_before
):
    steps = play(1, 64)
    (key,) = record(steps, size=64)
    block = blocks_of(file_of(key))[1]
    flip(file_of(key), block.offset + block.size // 2)
    bad = file_of(key).read_bytes()
    command = [sys.executable, "-c", _KILLED, str(root), str(stored_before)]
    assert subprocess.run(command, timeout=120, check=False).returncode == 9
    mended()
    found, _ = stored(root)
    kept = {p.read_bytes() for p in (root / "quarantine.d").rglob("*.refused")}
    assert bad in kept
    assert all(same(step, steps[index]) for (_, index), step in found.items())
    assert {index for _, index in found} == {*range(16), *range(32, 64)}
    assert wm("verify")[0] == 0
