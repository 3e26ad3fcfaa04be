"""Priority and processors of the control thread, where the system grants them and where not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from wm_core.contract.errors import SettingsError
from wm_ros.parameters import params
from wm_ros.process import realtime
from wm_ros.settings import RealtimeSettings

MAY_HAVE = "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))"


@pytest.fixture(scope="module")
def granted():
    """Whether a process of this machine may be scheduled under SCHED_FIFO."""
    return subprocess.run([sys.executable, "-c", MAY_HAVE], capture_output=True).returncode == 0


def in_thread(what):
    """What ``what`` returns in a thread of its own, which takes its scheduling with it."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(what()))
    thread.start()
    thread.join()
    return answers[0]


def test_nothing_is_changed_by_default():
    before = realtime.standing()
    assert in_thread(lambda: (realtime.enter(RealtimeSettings()), realtime.standing())) == (
        [],
        before,
    )


def test_a_priority_is_taken_or_refused_with_what_to_do(granted):
    said, now = in_thread(
        lambda: (realtime.enter(RealtimeSettings(realtime_priority=3)), realtime.standing())
    )
    assert now["priority"] == (3 if granted else 0)
    assert bool(said) != granted
    assert all("CAP_SYS_NICE" in text for text in said)


def test_a_thread_that_the_control_thread_starts_has_no_priority(granted):
    def started():
        realtime.enter(RealtimeSettings(realtime_priority=3))
        return in_thread(realtime.standing)

    assert in_thread(started)["priority"] == 0


@pytest.mark.parametrize(("priority", "lent"), [(3, 1), (1, 0), (0, 0)])
def test_the_streams_threads_follow_at_the_lowest_priority(granted, priority, lent):
    """No other program then keeps the processor from a thread that holds the interpreter."""
    ended = threading.Event()
    threads = {
        name: threading.Thread(target=ended.wait, name=name)
        for name in ("spool-rover", "uploader-1", "live", "policy-slot")
    }

    def lend():
        realtime.enter(RealtimeSettings(realtime_priority=priority))
        realtime.lend()
        realtime.lend()
        return {n: os.sched_getparam(t.native_id).sched_priority for n, t in threads.items()}

    for thread in threads.values():
        thread.start()
    try:
        got = in_thread(lend)
    finally:
        ended.set()
        for thread in threads.values():
            thread.join()
    wanted = lent if granted else 0
    brief = dict.fromkeys(("spool-rover", "uploader-1", "live"), wanted)
    assert got == {**brief, "policy-slot": 0}


def test_processors_are_taken_and_those_that_are_not_there_are_named():
    first, *_ = sorted(os.sched_getaffinity(0))
    said, now = in_thread(
        lambda: (realtime.enter(RealtimeSettings(cpu_affinity=(first,))), realtime.standing())
    )
    assert (said, now["processors"]) == ([], [first])
    (said,) = in_thread(lambda: realtime.enter(RealtimeSettings(cpu_affinity=(first, 4095))))
    assert "got [4095]" in said
    assert in_thread(realtime.standing)["processors"] == sorted(os.sched_getaffinity(0))


@pytest.mark.ros
def test_the_node_acts_with_what_it_is_granted_and_says_what_it_is_not(
    processes, watcher, policy_at, tmp_path, report_of, granted
):
    policy_at(tmp_path / "policy")
    state = tmp_path / "state"
    first, *_ = sorted(os.sched_getaffinity(0))
    node = processes.start(
        "policy_node",
        {
            "policy_dir": str(tmp_path / "policy"),
            "state_dir": str(state),
            "realtime_priority": 3,
            "cpu_affinity": [first],
            "record": False,
        },
    )
    deadline = time.monotonic() + 300
    while not (report := report_of(state / "status.json")).get("active"):
        assert node.poll() is None, processes.said("policy_node")
        assert time.monotonic() < deadline, processes.said("policy_node")
        time.sleep(0.1)
    assert report["realtime"] == {"priority": 3 if granted else 0, "processors": [first]}
    assert ("realtime_priority 3: this process may not" in processes.said("policy_node")) == (
        not granted
    )
    others = [
        len(os.sched_getaffinity(int(thread)))
        for thread in os.listdir(f"/proc/{node.pid}/task")
        if int(thread) != node.pid
    ]
    assert max(others) == len(os.sched_getaffinity(0))  # the threads beside it roam
    assert processes.stop("policy_node") == 0


@pytest.mark.parametrize("value", [["one"], [0.5], [True], "0", 1])
def test_processors_that_are_no_list_of_whole_numbers_are_refused(value):
    (param,) = [p for p in params.POLICY if p.name == "cpu_affinity"]
    with pytest.raises(SettingsError, match="a list of whole numbers"):
        param.fitted(value)
    assert param.fitted([0, 1]) == [0, 1]
