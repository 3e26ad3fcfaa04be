"""One training at a time uses a run folder, however the others ended."""

import os
import resource
import signal
import subprocess
import sys

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.library.run_lock import LOCK_NAME, RunLock, is_running

HOLD = r"""
import os, sys, time
from pathlib import Path
from wm_core.library.run_lock import RunLock
with RunLock(Path(sys.argv[1])):
    if os.fork() == 0:  # as an environment in a process of its own does
        os.write(1, f"child {os.getpid()}\n".encode())  # one write: two processes share the pipe
        time.sleep(600)
    os.write(1, b"held\n")
    time.sleep(600)
"""


def test_the_lock_is_held_by_one_and_names_its_process(tmp_path):
    run = tmp_path / "new" / "run"
    with RunLock(run):
        assert is_running(run) == os.getpid()
        with pytest.raises(SettingsError, match=f"process {os.getpid()} already"), RunLock(run):
            pass
        assert is_running(run) == os.getpid()
    assert is_running(run) is None
    assert run.is_dir()
    assert list(run.iterdir()) == []


def test_a_refused_start_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="refused"), RunLock(tmp_path / "a" / "b"):
        raise ValueError("refused")
    assert list(tmp_path.iterdir()) == []
    lock = RunLock(tmp_path / "c").__enter__()
    (tmp_path / "c" / "kept").touch()
    lock.__exit__(ValueError, None, None)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["kept"]


def test_what_a_kill_left_of_the_lock_changes_nothing(tmp_path):
    (tmp_path / LOCK_NAME).write_text("12345\n")
    assert is_running(tmp_path) is None
    with pytest.raises(ValueError, match="refused"), RunLock(tmp_path):
        raise ValueError("refused")
    assert (tmp_path / LOCK_NAME).read_text() == "12345\n"
    with RunLock(tmp_path):
        assert is_running(tmp_path) == os.getpid()
    assert not (tmp_path / LOCK_NAME).exists()


def test_a_disk_without_room_for_the_number_of_the_process_keeps_no_lock(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with RunLock(tmp_path):
            assert is_running(tmp_path) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with RunLock(tmp_path):
        assert is_running(tmp_path) == os.getpid()


def test_asking_about_a_run_that_is_not_there_makes_nothing(tmp_path):
    assert is_running(tmp_path / "nowhere") is None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for run in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(SettingsError, match=r"--run .*expected a folder") as refused,
            RunLock(run),
        ):
            pass
        assert "\n" not in str(refused.value)


def test_a_killed_process_frees_the_run_though_a_child_of_it_lives(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        lines = [process.stdout.readline().split(), process.stdout.readline().split()]
        child = next(int(line[1]) for line in lines if line[0] == "child")
        assert is_running(tmp_path) == process.pid
        with pytest.raises(SettingsError, match=str(process.pid)), RunLock(tmp_path):
            pass
        process.kill()
        process.wait(timeout=60)
        os.kill(child, 0)  # it lives
        assert is_running(tmp_path) is None
        with RunLock(tmp_path):
            assert is_running(tmp_path) == os.getpid()
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the child is in the same group
        process.communicate(timeout=60)
