"""Start and stop child processes that never outlive their parent.

Every child leads a process group of its own, so that Ctrl-C reaches only the parent, which then
stops the children in order; all stay in one session, so that ``nice`` works between them on
kernels that schedule by autogroup.  The kernel ends a child whose parent was killed outright.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from wm_core.contract.errors import WmError

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class ProcessFailed(WmError):
    """Raised when a child process ended before it was asked to."""


def _become_child() -> None:
    """Give the child a group of its own and tie its life to the parent."""
    os.setpgid(0, 0)
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Child:
    """One running process and the file that holds what it prints."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stream: IO[bytes]

    def tail(self, lines: int = 12) -> str:
        """The last lines that the process printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass
class ProcessGroup:
    """Processes that start one after the other and stop in the reverse order."""

    logs: Path
    env: Mapping[str, str]
    children: list[Child] = field(default_factory=list)

    def start(self, name: str, argv: Sequence[str]) -> Child:
        """Start ``argv``; what it prints goes to ``logs/<name>.log``."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        stream = log.open("wb")
        process = subprocess.Popen(
            list(argv),
            env=dict(self.env),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=_become_child,
        )
        child = Child(name, process, log, stream)
        self.children.append(child)
        return child

    def check(self) -> None:
        """Raise ``ProcessFailed``, with what it printed last, if a child has ended."""
        for child in self.children:
            code = child.process.poll()
            if code is not None:
                raise ProcessFailed(
                    f"{child.name} ended with {code}; its last output:\n{child.tail()}"
                )

    def wait_for(self, path: Path, *, timeout_s: float, what: str) -> None:
        """Wait until ``path`` exists while every child lives."""
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            self.check()
            if time.monotonic() > deadline:
                logs = "\n".join(f"[{c.name}] {c.tail(4)}" for c in self.children)
                raise ProcessFailed(f"waited {timeout_s:.0f} s for {what}; last output:\n{logs}")
            time.sleep(0.05)

    def stop(self, name: str, *, timeout_s: float = 20.0) -> int | None:
        """Interrupt one child and wait; kill its group if it does not end in time."""
        for child in [c for c in self.children if c.name == name]:
            self.children.remove(child)
            for sent, patience_s in ((signal.SIGINT, timeout_s), (signal.SIGKILL, 5.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, sent)
                try:
                    child.process.wait(patience_s)
                    break
                except subprocess.TimeoutExpired:
                    continue
            child.stream.close()
            return child.process.returncode
        return None

    def close(self) -> None:
        """Stop whatever still runs, the last started first."""
        for child in reversed(list(self.children)):
            self.stop(child.name)
