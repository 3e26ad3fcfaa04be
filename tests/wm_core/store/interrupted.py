"""Kills a workload at its k-th writing system call, for every k; then looks at what it left.

Run as a script by the tests: ``interrupted.py WORKLOAD STRIDE FOLDER``.  Each workload runs in a
fork that is traced (ptrace) and dies before the system call is carried out.  It says through a
pipe what it takes for durable; afterwards the folder must open and hold all of that.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TRACEME, SYSCALL, SETOPTIONS, SYSCALL_INFO = 0, 24, 0x4200, 0x420E
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x100000  # mark calls, follow forks and threads, die with us
WALL = 0x40000000
NOT_PERMITTED = 77  #: exit status where this machine does not let processes be traced
CALLS = {  # number: name, of what changes files or makes them durable
    "x86_64": {
        **{1: "write", 18: "pwrite64", 20: "writev", 74: "fsync", 75: "fdatasync", 2: "open"},
        **{257: "openat", 82: "rename", 264: "renameat", 316: "renameat2", 86: "link"},
        **{265: "linkat", 87: "unlink", 263: "unlinkat", 77: "ftruncate", 83: "mkdir"},
        **{258: "mkdirat", 285: "fallocate", 84: "rmdir", 296: "pwritev"},
    },
    "aarch64": {
        **{64: "write", 68: "pwrite64", 66: "writev", 82: "fsync", 83: "fdatasync"},
        **{56: "openat", 38: "renameat", 276: "renameat2", 37: "linkat", 35: "unlinkat"},
        **{46: "ftruncate", 34: "mkdirat", 47: "fallocate", 70: "pwritev"},
    },
}[os.uname().machine]
OPEN_FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class SyscallInfo(ctypes.Structure):
    """What the kernel says of a stop at a system call, its beginning if ``op`` is 1."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
    )


@dataclass
class Workload:
    """Something that writes, and what must hold of its folder wherever it was killed."""

    prepare: Callable[[Path], None]  #: makes the folder that every attempt begins with
    write: Callable[[Path, Callable[[str], None]], None]  #: writes and says what is durable
    check: Callable[[Path, list[str]], None]  #: raises unless all that was said is there


def is_writing(info: SyscallInfo, pipe: int) -> bool:
    name = CALLS.get(info.nr)
    if name is None:
        return False
    if name in ("open", "openat"):
        return bool(info.args[2 if name == "openat" else 1] & OPEN_FOR_WRITING)
    return not (name == "write" and info.args[0] in (1, 2, pipe))


def run_until(work: Callable[[Callable[[str], None]], None], k: int) -> tuple[int, list[str]]:
    """Run ``work`` in a fork and kill it before its k-th writing call.

    Returns:
        Writing calls that it began, at most k, and what it said was durable.
    """
    reads, pipe = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if libc.ptrace(TRACEME, 0, None, None):
                os._exit(NOT_PERMITTED)
            os.kill(os.getpid(), signal.SIGSTOP)
            work(lambda text: os.write(pipe, f"{text}\n".encode()) and None)
            status = 0
        finally:
            os._exit(status)
    os.close(pipe)
    count = follow(pid, pipe, k)
    with os.fdopen(reads, "rb") as said:
        return count, said.read().decode().split("\n")[:-1]


def follow(pid: int, pipe: int, k: int) -> int:
    _, status = os.waitpid(pid, WALL)
    if os.WIFEXITED(status) or libc.ptrace(SETOPTIONS, pid, None, OPTIONS):
        sys.exit(NOT_PERMITTED)
    libc.ptrace(SYSCALL, pid, None, None)
    count, info = 0, SyscallInfo()
    while True:
        task, status = os.waitpid(-1, WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if task == pid:
                if os.WIFEXITED(status) and os.WEXITSTATUS(status):
                    raise AssertionError(f"the workload failed with {os.WEXITSTATUS(status)}")
                return count
            continue
        stopped, deliver = os.WSTOPSIG(status), 0
        if stopped == signal.SIGTRAP | 0x80:
            size = ctypes.sizeof(info)
            libc.ptrace(SYSCALL_INFO, task, size, ctypes.addressof(info))
            if info.op == 1 and count < k and is_writing(info, pipe):
                count += 1
                if count == k:
                    os.kill(pid, signal.SIGKILL)
                    continue
        elif stopped not in (signal.SIGTRAP, signal.SIGSTOP):
            deliver = stopped
        libc.ptrace(SYSCALL, task, None, deliver)


def campaign(workload: Workload, stride: int, folder: Path) -> dict[str, int]:
    """Kill at the calls stride, 2 stride, ... and one past the end; check each time."""
    start, attempt = folder / "start", folder / "attempt"
    workload.prepare(start)
    kills, k = 0, 1
    while True:
        shutil.copytree(start, attempt)
        count, said = run_until(lambda say: workload.write(attempt, say), k)
        try:
            workload.check(attempt, said)
        except Exception as error:
            raise AssertionError(f"killed at writing call {k}: {error!r}; said {said}") from error
        shutil.rmtree(attempt)
        if count < k:
            return {"calls": count, "kills": kills}
        kills += 1
        k += stride


if __name__ == "__main__":
    signal.alarm(1500)
    name, step, where = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    from interrupted_workloads import WORKLOADS

    sys.stdout.write(json.dumps(campaign(WORKLOADS[name], int(step), Path(where))))
