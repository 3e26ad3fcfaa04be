"""A store is verified, repaired from copies, filled from a folder, and gets a new ledger."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3

import pytest

from wm_core.cli.main import main
from wm_core.format.chunk import chunk_path
from wm_core.store.examine import MAX_CHUNK_BYTES
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reconcile import reconcile
from wm_core.store.retention import prune
from wm_core.store.verify import Scrub, verify


@pytest.fixture
def fill(store, ledger, make_chunk):
    """Stores chunks of one session and returns them."""

    def put(count, session=None, first=0):
        name = session or make_chunk()[0].session
        chunks = [make_chunk(seq, session=name) for seq in range(first, first + count)]
        for chunk in chunks:
            assert ingest(store, ledger, *chunk).kind == "stored"
        return chunks

    return put


DAMAGE = {
    "cut": lambda path, data: path.write_bytes(data[:-1]),
    "emptied": lambda path, data: path.write_bytes(b""),
    "a flipped bit": lambda path, data: path.write_bytes(
        data[:99] + bytes([data[99] ^ 4]) + data[100:]
    ),
    "gone": lambda path, data: path.unlink(),
    "another chunk's": lambda path, data: path.write_bytes(data + data),
    "a folder": lambda path, data: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_never_known_and_the_good_bytes_replace_it(
    store, ledger, fill, damage, capsys, tmp_path
):
    (key, data, sha256), _ = fill(2)
    path = chunk_path(store, key)
    damage(path, data)
    assert main(["store", "verify", "--root", str(tmp_path)]) == 1
    assert path.name in capsys.readouterr().out
    assert ledger.counts()["damaged"] == 1
    verdict = ingest(store, ledger, key, data, sha256)
    if path.is_dir():  # nothing is stored over what a person put there; the robot keeps its copy
        assert verdict.kind == "busy"
        path.rmdir()
        verdict = ingest(store, ledger, key, data, sha256)
    assert verdict.kind == "known"
    assert "replaced" in verdict.reason
    assert path.read_bytes() == data
    assert ledger.counts()["damaged"] == 0
    assert main(["store", "verify", "--root", str(tmp_path)]) == 0


@pytest.mark.parametrize("damage", ["cut", "emptied", "gone"])
def test_a_start_notices_a_file_of_another_size(store, ledger, fill, damage):
    (key, data, _), _ = fill(2)
    DAMAGE[damage](chunk_path(store, key), data)
    assert reconcile(store, ledger).missing == 1
    assert list(ledger.damaged()) == [ledger.find(key).arrival]


def test_a_scrub_notices_a_flipped_bit_by_itself(store, ledger, fill, wait_until):
    chunks = fill(4)
    key, data, _ = chunks[2]
    DAMAGE["a flipped bit"](chunk_path(store, key), data)
    scrub = Scrub(store, ledger, bytes_per_s=1e9)
    wait_until(lambda: scrub.passes >= 1)
    scrub.close()
    scrub.close()
    assert list(ledger.damaged()) == [ledger.find(key).arrival]


def test_verifying_does_not_miss_what_was_evicted(store, ledger, fill):
    fill(4)
    prune(store, ledger, 1)
    found = verify(store, ledger)
    assert (found.chunks, found.damaged) == (1, [])


# ------------------------------------------------------------------ import


def test_a_carried_folder_is_taken_in_once(tmp_path, store, make_chunk, capsys):
    stick, session = tmp_path / "stick", make_chunk()[0].session
    chunks = [make_chunk(seq, session=session) for seq in range(5)]
    for key, data, _ in chunks:
        path = chunk_path(stick / "spool", key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    loose, loose_data, _ = make_chunk(robot="other")
    (stick / "anything.mcap").write_bytes(loose_data)
    command = ["store", "import", "--root", str(tmp_path), "--from", str(stick)]
    assert main(command) == 0
    assert "6 new chunks, 0 known" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 new chunks, 6 known" in capsys.readouterr().out
    for key, data, _ in chunks:
        assert chunk_path(store, key).read_bytes() == data
    assert chunk_path(store, loose).exists()


def test_an_import_repairs_what_is_damaged_and_names_what_it_refuses(
    tmp_path, store, fill, capsys, make_chunk
):
    chunks = fill(3)
    stick = tmp_path / "stick"
    shutil.copytree(store, stick, ignore=shutil.ignore_patterns("ledger*"))
    key, data, _ = chunks[1]
    DAMAGE["a flipped bit"](chunk_path(store, key), data)
    (stick / "cut.mcap").write_bytes(data[:500])
    (stick / "link.mcap").symlink_to("/etc/passwd")
    os.mkfifo(stick / "pipe.mcap")
    with (stick / "huge.mcap").open("wb") as huge:
        huge.truncate(MAX_CHUNK_BYTES + 1)
    rival = make_chunk(0, session=key.session, salt=9)
    chunk_path(stick, rival[0]).write_bytes(rival[1])
    assert main(["store", "import", "--root", str(tmp_path), "--from", str(stick)]) == 1
    said = capsys.readouterr().out
    assert "0 new chunks, 1 known, 1 damaged ones replaced, 5 refused" in said
    for name in ("cut.mcap", "link.mcap", "pipe.mcap", "huge.mcap", "00000000.mcap"):
        assert name in said
    assert chunk_path(store, key).read_bytes() == data
    assert chunk_path(store, chunks[0][0]).read_bytes() == chunks[0][1]


@pytest.mark.parametrize("above", range(4))
def test_a_folder_may_be_named_from_within(tmp_path, store, make_chunk, monkeypatch, above):
    key, data, _ = make_chunk()
    path = chunk_path(tmp_path / "stick" / "spool", key)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    monkeypatch.chdir(path.parent)
    source = "/".join([".."] * above) or "."
    assert main(["store", "import", "--root", str(tmp_path), "--from", source]) == 0
    assert chunk_path(store, key).read_bytes() == data


def test_an_import_of_nothing_says_what_it_expects(tmp_path, capsys):
    assert main(["store", "import", "--root", str(tmp_path), "--from", str(tmp_path / "no")]) == 2
    assert "expected a folder" in capsys.readouterr().err


# ------------------------------------------------------------------ rebuild


def scramble(path, at):
    """Overwrite a page of the database."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(4096))


@pytest.mark.parametrize("page", [0, 1, 2, 3, 5, 8])
def test_a_scrambled_ledger_is_one_clear_line_and_is_rebuilt(
    tmp_path, store, fill, ledger, capsys, page
):
    chunks = fill(60)
    arrivals = {row.key: row.arrival for row in ledger.since(0)}
    ledger.close()
    for name in (f"{LEDGER_NAME}-wal", f"{LEDGER_NAME}-shm"):
        assert not (store / name).exists()
    scramble(store / LEDGER_NAME, 4096 * page)
    assert main(["store", "verify", "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "wm store rebuild" in error
    assert main(["store", "rebuild", "--root", str(tmp_path)]) == 0
    again = Ledger(store / LEDGER_NAME)
    again.check()
    assert {row.sha256 for row in again.since(0)} == {sha256 for _, _, sha256 in chunks}
    assert not any(reconcile(store, again))
    kept = [row for row in again.since(0) if arrivals[row.key] == row.arrival]
    assert len({row.arrival for row in again.since(0)}) == 60
    if page > 5:  # what of the old rows can be read keeps its place
        assert kept
    for chunk in chunks:
        assert ingest(store, again, *chunk).kind == "known"
    again.close()
    assert list(store.glob(f"{LEDGER_NAME}.damaged-*"))


def test_a_rebuilt_ledger_knows_what_was_evicted_and_refused(
    tmp_path, store, ledger, fill, make_chunk
):
    chunks = fill(6)
    key = chunks[5][0]
    rival = make_chunk(5, session=key.session, salt=1)
    assert ingest(store, ledger, *rival).kind == "conflict"
    prune(store, ledger, sum(len(data) for _, data, _ in chunks[4:]))
    chunk_path(store, key).unlink()
    before, refused = ledger.since(0), ledger.refused()
    ledger.close()
    assert main(["store", "rebuild", "--root", str(tmp_path)]) == 0
    again = Ledger(store / LEDGER_NAME)
    assert again.since(0) == before
    assert [r[:6] for r in again.refused()] == [r[:6] for r in refused]
    assert ingest(store, again, *chunks[0]).kind == "known"
    assert reconcile(store, again).missing == 1
    assert ingest(store, again, *chunks[5]).kind == "known"
    assert reconcile(store, again).missing == 0
    again.close()


def test_a_ledger_without_rows_for_new_files_enters_them_by_age(tmp_path, store, ledger, fill):
    chunks = fill(3)
    ledger.close()
    for path in store.glob(f"{LEDGER_NAME}*"):
        path.unlink()
    for age, (key, _, _) in enumerate(reversed(chunks)):
        os.utime(chunk_path(store, key), (1000 + age, 1000 + age))
    assert main(["store", "rebuild", "--root", str(tmp_path)]) == 0
    again = Ledger(store / LEDGER_NAME)
    assert [row.seq for row in again.since(0)] == [2, 1, 0]
    again.close()


@pytest.mark.parametrize("lock", ["service.lock", "run.lock"])
def test_a_store_that_is_in_use_is_not_rebuilt(tmp_path, store, ledger, fill, capsys, lock):
    from wm_core.contract.files import try_lock

    fill(1)
    ledger.close()
    before = (store / LEDGER_NAME).stat().st_ino
    held = try_lock(tmp_path / lock)
    assert main(["store", "rebuild", "--root", str(tmp_path)]) == 2
    assert "by another process; stop it first" in capsys.readouterr().err
    assert (store / LEDGER_NAME).stat().st_ino == before
    os.close(held)
    assert main(["store", "rebuild", "--root", str(tmp_path)]) == 0


def test_a_ledger_of_version_1_is_taken_over(store, ledger, fill):
    chunks = fill(3)
    before = ledger.since(0)
    ledger.close()
    db = sqlite3.connect(store / LEDGER_NAME, isolation_level=None)
    for drop in ("TABLE unsound", "TABLE damaged"):
        db.execute(f"DROP {drop}")
    db.execute("PRAGMA user_version=1")
    db.close()
    again = Ledger(store / LEDGER_NAME)
    assert again.since(0) == before
    for key, data, sha256 in chunks:
        assert hashlib.sha256(data).hexdigest() == sha256
        assert ingest(store, again, key, data, sha256).kind == "known"
    again.close()
