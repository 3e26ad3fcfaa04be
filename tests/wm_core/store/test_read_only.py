"""A reader that writes nothing sees whatever others have committed since."""

import contextlib
import signal
import sqlite3
import subprocess
import sys

import pytest

from wm_core.format.chunk import ChunkKey
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.read_only import ReadOnly


def test_a_reader_sees_what_a_writer_left_that_came_and_went_between_two_looks(tmp_path):
    path = tmp_path / LEDGER_NAME
    Ledger(path).close()
    reader = Ledger(path, read_only=True)
    assert reader.quarantined() == (0, 0)
    for number in (1, 2):
        writer = sqlite3.connect(path)
        with writer:
            row = ("rover", "aa", number, "0" * 64, 10, "damaged", 0)
            writer.execute("INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        writer.close()  # folds its log into the file and removes it
        assert not path.with_name(f"{LEDGER_NAME}-wal").exists()
        assert reader.quarantined() == (number, 10 * number)
    reader.close()


KILLED = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("INSERT INTO quarantine VALUES ('rover', 'aa', 9, '0', 5, 'damaged', 0)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def left(tmp_path):
    """A ledger with the two files that a killed writer leaves, and one row in its log."""
    path = tmp_path / LEDGER_NAME
    Ledger(path).close()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{LEDGER_NAME}{s}" for s in ("", "-wal", "-shm")
    }
    return path


def content(path):
    return {p.name: p.read_bytes() for p in path.parent.iterdir()}


def test_reading_what_a_killed_writer_left_changes_no_byte_of_its_three_files(left):
    before = content(left)
    with (
        contextlib.closing(Ledger(left, read_only=True)) as reader,
        contextlib.closing(Ledger(left, read_only=True)) as second,
    ):
        assert reader.quarantined() == second.quarantined() == (1, 5)
    assert content(left) == before


def test_a_reader_of_what_a_killed_writer_left_sees_who_goes_on(left):
    """Whether the next writer is of this process or of another."""
    reader = Ledger(left, read_only=True)
    assert reader.quarantined() == (1, 5)
    subprocess.run([sys.executable, "-c", KILLED.replace("9", "8"), str(left)], check=False)
    assert reader.quarantined() == (2, 10)
    reader.close()
    reader, writer = Ledger(left, read_only=True), Ledger(left)
    for count in (3, 4):
        writer.add_refused(ChunkKey("rover", "bb", count), "0" * 64, 5, "damaged")
        assert reader.quarantined() == (count, 5 * count)
    reader.close()
    writer.add_refused(ChunkKey("rover", "bb", 9), "0" * 64, 5, "damaged")
    assert writer.quarantined() == (5, 25)
    writer.close()
    assert [p.name for p in left.parent.iterdir()] == [LEDGER_NAME]


@pytest.mark.parametrize("looks", [2, 5])
def test_a_writer_whose_locks_cannot_be_seen_is_copied_once_at_most(left, looks, monkeypatch):
    """Those of another container are hidden; that the files change gives it away."""
    monkeypatch.setattr("wm_core.store.read_only._LOCKS", left.with_name("no-locks"))
    left.with_name("no-locks").touch()
    copies = []
    copied = ReadOnly._copied
    monkeypatch.setattr(ReadOnly, "_copied", lambda self: copies.append(1) or copied(self))
    reader, writer = Ledger(left, read_only=True), Ledger(left)
    for look in range(looks):
        writer.add_refused(ChunkKey("rover", "bb", look), "0" * 64, 5, "damaged")
        assert reader.quarantined()[0] == look + 2
    assert len(copies) == 1
    reader.close()
    writer.close()
