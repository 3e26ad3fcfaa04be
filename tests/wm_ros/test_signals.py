"""A signal ends a node in order, however early it comes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.wm_ros.conftest import ROOT, START, WAIT_S, Processes

pytestmark = pytest.mark.ros


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt")).split()[1]
    return bool(int(caught, 16) & 1 << (number - 1))


def wait_for(
    holds: Callable[[], bool], processes: Processes, executable: str, every_s: float = 0.1
) -> None:
    """Wait until ``holds``, while the process goes on; a failure shows what it said."""
    deadline = time.monotonic() + 300.0
    while not holds():
        assert processes.running[executable].poll() is None, processes.said(executable)
        assert time.monotonic() < deadline, processes.said(executable)
        time.sleep(every_s)


@pytest.mark.parametrize(
    ("executable", "delay_s"),
    [("policy_node", 0.0), ("policy_node", 0.4), ("policy_node", 0.9), ("sim_node", 0.2)],
)
def test_a_signal_during_the_start_ends_the_node_in_order(
    processes, policy_at, executable, delay_s, tmp_path
):
    given = {"task": "counting_task:Counting-v0"}
    if executable == "policy_node":
        policy = policy_at(tmp_path / "policy", bias=0.5)
        given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    process = processes.start(executable, given, before=("-c", START.format(executable)))
    wait_for(lambda: catches(process.pid, signal.SIGTERM), processes, executable, every_s=0.0)
    time.sleep(delay_s)
    assert processes.stop(executable, signal.SIGTERM) == 0
    assert "Traceback" not in processes.said(executable)


def threads_of(pid: int) -> list[str]:
    """Names of a process's threads."""
    names = []
    for file in Path(f"/proc/{pid}/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            names.append(file.read_text().strip())
    return sorted(names)


#: runs a node and says when it has ended; the process then waits to be looked at
WAITS = (
    START.replace("raise SystemExit({0}())", "code = {0}()")
    + "; import time; print('ended with', code, flush=True); time.sleep(1000)"
)


@pytest.mark.parametrize("executable", ["policy_node", "sim_node"])
def test_a_node_has_left_the_network_before_its_process_exits(
    processes, policy_at, report_of, executable, tmp_path
):
    """Threads of a participant that is still there race its destructor: some exits abort."""
    given = {"task": "counting_task:Counting-v0"}
    if executable == "policy_node":
        policy = policy_at(tmp_path / "policy", bias=0.5)
        given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    process = processes.start(executable, given, before=("-c", WAITS.format(executable)))

    def runs() -> bool:
        if executable == "policy_node":
            return bool(report_of(tmp_path / "state/status.json").get("active"))
        return any(name.startswith("dds.udp") for name in threads_of(process.pid))

    wait_for(runs, processes, executable)
    process.send_signal(signal.SIGINT)
    wait_for(lambda: "ended with 0" in processes.said(executable), processes, executable)
    left = [name for name in threads_of(process.pid) if name.startswith("dds.")]
    assert left in ([], ["dds.shm.wdog"])  # the watchdog is the library's, not a node's


def test_the_handlers_are_set_before_anything_that_takes_time_is_imported():
    """``wm_ros.start`` itself must import nothing but the standard library's signal."""
    source = (Path(__file__).parents[2] / "wm_ros" / "start.py").read_text()
    heads = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert heads == ["from __future__ import annotations", "from wm_ros.process import signals"]


#: says which signals of all that a terminal sends it remembers, as they were ``{0}`` before
REMEMBERS = """
import os, signal
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.{0})
from wm_ros.process import signals
got = signals.remember()
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
    os.kill(os.getpid(), number)
print(*sorted(signal.Signals(number).name for number in got))
"""


@pytest.mark.parametrize(
    ("before", "remembered"),
    [("SIG_DFL", "SIGHUP SIGINT SIGQUIT SIGTERM"), ("SIG_IGN", "SIGINT SIGTERM")],
)
def test_signals_of_a_terminal_are_remembered_unless_they_were_ignored(before, remembered):
    """As under nohup, where a node is to outlive its terminal."""
    done = subprocess.run(
        [sys.executable, "-c", REMEMBERS.format(before)],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S,
    )  # fmt: skip
    assert done.stdout.split() == remembered.split(), done.stderr


def test_a_terminal_that_hangs_up_ends_the_node_with_a_last_zero(
    processes, watcher, policy_at, tmp_path
):
    from geometry_msgs.msg import TwistStamped

    commands = watcher.listen(TwistStamped, "cmd_vel")
    policy = policy_at(tmp_path / "policy", bias=0.5)
    given = {"policy_dir": str(policy), "state_dir": str(tmp_path / "state")}
    # the tests themselves may run under nohup
    heard = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    before = ("-c", heard + START.format("policy_node"))
    processes.start("sim_node", {"task": "counting_task:Counting-v0"})
    processes.start("policy_node", given, before=before)
    watcher.until(lambda: commands and commands[-1].twist.linear.x != 0.0, "a moving robot")
    assert processes.stop("policy_node", signal.SIGHUP) == 0
    watcher.until(lambda: commands[-1].twist.linear.x == 0.0, "a last zero")
