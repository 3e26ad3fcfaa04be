"""A reader that writes nothing sees whatever others have committed since."""

from wm_core.store.ledger import LEDGER_NAME, Ledger


def test_a_reader_sees_what_a_writer_left_that_came_and_went_between_two_looks(tmp_path):
    path = tmp_path / LEDGER_NAME
    Ledger(path).close()
    reader = Ledger(path, read_only=True)
    assert reader.pruned_through() == 0
    for arrival in (3, 7):
        writer = Ledger(path)
        with writer.writing():
            writer.mark_pruned(arrival)
        writer.close()  # folds its log into the file and removes it
        assert not path.with_name(f"{LEDGER_NAME}-wal").exists()
        assert reader.pruned_through() == arrival
    reader.close()
