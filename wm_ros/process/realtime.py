"""Gives the control thread a real-time priority and processors of its own; no ROS.

Both hold for the calling thread alone: threads that were started before keep theirs, and those
that it starts later get no priority, for their work must never stop the control thread.  Only the
threads of the stream get the lowest real-time priority: the control thread waits for whichever of
them holds the interpreter, and on a busy computer another program would keep the processor from
it meanwhile.
"""

from __future__ import annotations

import os
import threading

from wm_ros.settings import RealtimeSettings

_RIGHTS = (
    "run the node with CAP_SYS_NICE (docker: --cap-add sys_nice --ulimit rtprio=99), or give its "
    "user `rtprio 99` in /etc/security/limits.d and log in again"
)


#: names of threads that hold the interpreter briefly and often; the one that proves policies
#: computes for seconds and is none of them
_BRIEF = ("spool", "uploader", "policy-client", "report-writer", "live")
_lent: set[int] = set()  # threads by their number in the system


def lend() -> None:
    """Let no other program keep the processor from the stream's threads.

    To be called by the control thread, now and then, for threads come and go; nothing happens
    where it has no real-time priority above the lowest.
    """
    try:
        fifo = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
        if not fifo or os.sched_getparam(0).sched_priority < 2:
            return
        brief = [t.native_id for t in threading.enumerate() if t.name.startswith(_BRIEF)]
        for number in brief:
            if number is not None and number not in _lent:
                policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
                os.sched_setscheduler(number, policy, os.sched_param(1))
        _lent.clear()
        _lent.update(number for number in brief if number is not None)
    except (AttributeError, OSError):  # not Linux, or a thread that has just ended
        return


def enter(settings: RealtimeSettings) -> list[str]:
    """Apply ``settings`` to the calling thread; returns what could not be applied, a line each."""
    return [text for text in (_affinity(settings), _priority(settings)) if text]


def _priority(settings: RealtimeSettings) -> str:
    wanted = settings.realtime_priority
    if not wanted:
        return ""
    try:
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(wanted))
    except PermissionError:
        return (
            f"realtime_priority {wanted}: this process may not have it, the node goes on at its "
            f"normal priority; {_RIGHTS}"
        )
    except (AttributeError, OSError, ValueError) as error:
        return f"realtime_priority {wanted} is not to be had on this system: {error}"
    return ""


def _affinity(settings: RealtimeSettings) -> str:
    wanted = {number for number in settings.cpu_affinity if number >= 0}
    if not wanted:
        return ""
    try:
        there = os.sched_getaffinity(0)
        if missing := sorted(wanted - there):
            return (
                f"cpu_affinity {sorted(wanted)}: expected processors of {sorted(there)}, got "
                f"{missing}; the node goes on on all of them"
            )
        os.sched_setaffinity(0, wanted)
    except (AttributeError, OSError) as error:
        return f"cpu_affinity {sorted(wanted)} is not to be had on this system: {error}"
    return ""


def standing() -> dict[str, object]:
    """Say what the calling thread has: its real-time priority (0: none) and its processors."""
    try:
        fifo = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO
        priority = os.sched_getparam(0).sched_priority if fifo else 0
        return {"priority": priority, "processors": sorted(os.sched_getaffinity(0))}
    except (AttributeError, OSError):
        return {}
