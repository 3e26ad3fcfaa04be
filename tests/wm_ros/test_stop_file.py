"""A file says that the emergency stop is latched, whatever ends the node, and delays no stop."""

from __future__ import annotations

import threading
import time

import pytest

from wm_ros.safety import stop_file
from wm_ros.safety.stop_file import STOP_NAME, StopFile


@pytest.fixture
def opened():
    """Opens the stop file of a folder; ``opened(folder)``."""
    found = []

    def open_in(folder) -> StopFile:
        found.append(StopFile(folder))
        return found[-1]

    yield open_in
    for one in found:
        one.close()


def wait_for(holds) -> None:
    deadline = time.monotonic() + 300.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_next_start_finds_the_stop_until_it_is_rearmed(tmp_path, opened):
    folder = tmp_path / "state"
    first = opened(folder)
    assert first.found == ""
    first.keep("emergency_silent")
    first.close()
    second = opened(folder)
    assert second.found == "emergency_silent"
    second.keep("")
    second.close()
    assert opened(folder).found == ""
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"takeover\n"])
def test_a_damaged_file_is_an_emergency_stop(tmp_path, opened, content):
    (tmp_path / STOP_NAME).write_bytes(content)
    assert opened(tmp_path).found == "emergency_stop"


def test_a_file_that_cannot_be_read_is_an_emergency_stop(tmp_path, opened):
    (tmp_path / STOP_NAME).mkdir()
    assert opened(tmp_path).found == "emergency_stop"


def test_a_stop_does_not_wait_for_the_disk(tmp_path, opened, monkeypatch):
    begun, lasts = threading.Event(), threading.Event()

    def slow(path, data):
        begun.set()
        assert lasts.wait(300.0)

    monkeypatch.setattr(stop_file, "write_durably", slow)
    kept = opened(tmp_path)
    kept.keep("emergency_stop")  # returns
    assert begun.wait(300.0)
    kept.keep("")  # and so does this one, while the disk is at work
    lasts.set()


def test_a_disk_that_refuses_is_reported_and_tried_again(tmp_path, opened, monkeypatch, caplog):
    monkeypatch.setattr(stop_file, "_AGAIN_S", 0.01)
    wall = tmp_path / "wall"
    wall.write_text("a file where the node's folder should be")
    kept = opened(wall / "state")
    kept.keep("emergency_stop")
    wait_for(lambda: "an emergency stop, or its end, cannot be kept" in caplog.text)
    wall.unlink()
    wait_for((wall / "state" / STOP_NAME).exists)
    kept.close()
    assert opened(wall / "state").found == "emergency_stop"
    assert caplog.text.count("cannot be kept") == 1


def test_a_rearm_removes_what_a_write_left_that_only_seemed_to_fail(tmp_path, opened, monkeypatch):
    """The name was there and the sync behind it failed: the next start must not find it."""
    write, tried = stop_file.write_durably, threading.Event()

    def written_and_refused(path, data):
        write(path, data)
        tried.set()
        raise OSError("of the test")

    monkeypatch.setattr(stop_file, "write_durably", written_and_refused)
    kept = opened(tmp_path)
    kept.keep("emergency_stop")
    assert tried.wait(300.0)
    kept.keep("")
    kept.close()
    assert opened(tmp_path).found == ""
