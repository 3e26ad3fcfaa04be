"""Children are started, watched and stopped for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wm_core.demo.processes import ProcessFailed, ProcessGroup

SLEEPER = [sys.executable, "-c", "import time; time.sleep(3600)"]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"


def wait_gone(pid: int, timeout_s: float = 300.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_a_child_that_ends_by_itself_is_named_with_what_it_said(tmp_path: Path) -> None:
    group = ProcessGroup(tmp_path, os.environ)
    group.start("short", [sys.executable, "-c", "print('my last words'); raise SystemExit(3)"])
    with pytest.raises(ProcessFailed, match=r"short ended with 3(.|\n)*my last words"):
        group.wait_for(tmp_path / "never", timeout_s=300, what="nothing")
    group.close()


def test_a_child_that_ignores_the_interrupt_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = (
        "import pathlib, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(3600)"
    )
    group = ProcessGroup(tmp_path, os.environ)
    child = group.start("stubborn", [sys.executable, "-c", stubborn])
    group.wait_for(ready, timeout_s=300, what="the child")
    assert group.stop("stubborn", timeout_s=0.2) == -signal.SIGKILL
    assert not alive(child.process.pid)


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    parent_code = (
        "import os, pathlib, sys, time\n"
        "from wm_core.demo.processes import ProcessGroup\n"
        f"group = ProcessGroup(pathlib.Path({str(tmp_path)!r}), os.environ)\n"
        f"child = group.start('child', {SLEEPER!r})\n"
        f"pathlib.Path({str(told)!r}).write_text(str(child.process.pid))\n"
        "time.sleep(3600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code]) as parent:
        deadline = time.monotonic() + 300
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        child = int(told.read_text())
        assert alive(child)
        parent.kill()
    assert wait_gone(child)
