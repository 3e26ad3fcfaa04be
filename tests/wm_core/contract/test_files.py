"""A file is whole or absent, and a failure leaves nothing behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from wm_core.contract.files import (
    read_json,
    remove_unfinished,
    write_atomically,
    write_durably,
    write_new,
)


@pytest.mark.parametrize("write", [write_durably, write_atomically])
def test_folders_are_made_and_a_file_is_replaced_whole(tmp_path, write):
    path = tmp_path / "a" / "b" / "file"
    write(path, b"old and long")
    write(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_what_was_there_and_no_litter(tmp_path):
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)  # a folder of that name cannot be replaced
    with pytest.raises(OSError, match="taken"):
        write_durably(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_unfinished_is_removed_and_nothing_else(tmp_path):
    others = {tmp_path / name for name in ("status.json", "status.jsonl.0a1b.tmp", "own.tmp")}
    for path in (*others, tmp_path / "status.json.0a1b2c3d.tmp"):
        path.touch()
    remove_unfinished(tmp_path / "missing", "*.json")
    remove_unfinished(tmp_path, "*.json")
    assert set(tmp_path.iterdir()) == others


def test_a_file_in_the_way_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError, match="a"):
        write_durably(tmp_path / "a" / "b", b"new")


@pytest.mark.parametrize("content", [None, b"", b"{half", b"[1, 2]", b"\xff"])
def test_a_file_without_a_json_object_reads_as_empty(tmp_path, content):
    path = tmp_path / "facts.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) == {}
    path.write_bytes(b'{"a": 1}')
    assert read_json(path) == {"a": 1}


def test_exactly_one_of_many_writers_makes_a_new_file_and_nobody_replaces_it(tmp_path):
    path = tmp_path / "a" / "file"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: write_new(path, b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert path.read_bytes() == b"%d" % made.index(True)
    assert list(path.parent.iterdir()) == [path]
