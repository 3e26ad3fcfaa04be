"""A reader that writes nothing sees whatever others have committed since."""

import sqlite3

from wm_core.store.ledger import LEDGER_NAME, Ledger


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
