"""A file is whole or absent, and a failure leaves nothing behind."""

from __future__ import annotations

import pytest

from wm_core.contract.files import write_durably


def test_folders_are_made_and_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_durably(path, b"old and long")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there_and_no_litter(tmp_path):
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)  # a folder of that name cannot be replaced
    with pytest.raises(OSError, match="taken"):
        write_durably(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError, match="a"):
        write_durably(tmp_path / "a" / "b", b"new")
