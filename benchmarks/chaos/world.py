"""The campaign's processes and disks: one service, several robots, one reader, a proxy between."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Container
from pathlib import Path

from benchmarks.chaos.account import Injured
from benchmarks.chaos.clock import WallClock
from benchmarks.chaos.disks import Disk, mountable
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.robot import RobotOrders
from benchmarks.chaos.steps import ProgressFile

REPOSITORY = Path(__file__).parents[2]
_SPOOL_DISKS = 2
_PATIENCE_S = 180.0  # longest that anything may take on a busy machine


class Stuck(Exception):
    """Says that something which has to go on did not."""


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = _PATIENCE_S) -> None:
    """Wait for ``condition``; raises ``Stuck`` at the deadline."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise Stuck(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.02)


class World:
    """Starts, kills and restarts everything that takes part.

    Args:
        root: an empty folder for all of it.
        images: folder for the files that hold the disks; None for plain folders.
        robots: how many.
        share: of the requests that the proxy mistreats by itself.
        rng: draws what the proxy does.
    """

    def __init__(
        self, root: Path, images: Path | None, robots: int, share: float, rng: random.Random
    ) -> None:
        self.root, self.rng = root, rng
        self.state = root / "state"
        (self.state / "logs").mkdir(parents=True)
        self.clock = WallClock(self.state / "clock")
        self.disks = images is not None and mountable()
        where = images if self.disks else None
        if where is not None:
            where.mkdir(parents=True, exist_ok=True)

        def disk(name: str, size_bytes: int) -> Disk:
            image = where / f"{name}.{os.getpid()}.img" if where else None
            return Disk(root / name, image, size_bytes)

        self.trainer = disk("trainer", 3 << 30)
        self.spools = [disk(f"spools-{n}", 1500 << 20) for n in range(_SPOOL_DISKS)]
        self.run = self.trainer.place / "run"
        self.store = self.run / "store"
        self.names = [f"rover{n}" for n in range(robots)]
        self.tokens = {name: secrets.token_urlsafe(24) for name in self.names}
        self.greedy = self.names[-1] if robots > 1 else ""  #: fills its small spool
        self.tokens_file = self.state / "tokens"
        self.write_tokens(self.names)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.port, self.reader_seen = 0, 0
        self.inside: dict[str, str] = {}  #: network namespaces of processes
        self.injured: dict[str, Injured] = {}
        self.found: list[str] = []  #: what faults found that must not be
        self.proxy = Proxy(lambda: self.port, share, rng)

    # ------------------------------------------------------------------ processes

    def start_all(self) -> None:
        """Start service, reader and robots."""
        self.start_service()
        self.start_reader()
        for name in self.names:
            self.start_robot(name)

    def start_service(self, *more: str) -> None:
        """Start ``wm serve`` on a new port and wait until it says where it listens."""
        options = ["--root", str(self.run), "--port", "0", "--min-free-bytes", "0"]
        options += ["--tokens", str(self.tokens_file), *more]
        clock = str(self.state / "clock")
        process = self.start("service", "benchmarks.chaos.wm", clock, "serve", *options)

        def announced() -> bool:
            if process.poll() is not None:
                raise Stuck(f"the service ended with {process.returncode}: {self.tail('service')}")
            with contextlib.suppress(OSError, ValueError):
                said = json.loads((self.run / "service.json").read_bytes())
                if said["pid"] == process.pid:
                    self.port = int(said["url"].rsplit(":", 1)[1])
                    return True
            return False

        wait_until(announced, "the service to start")

    def start_reader(self) -> None:
        """Start the reader, which follows the store."""
        self.start("reader", "benchmarks.chaos.reader", str(self.store), str(self.state))

    def spool_of(self, name: str) -> Path:
        """Give the spool folder of a robot."""
        return self.disk_of(name).place / name

    def disk_of(self, name: str) -> Disk:
        """Give the disk on which a robot's spool lies."""
        return self.spools[self.names.index(name) % _SPOOL_DISKS]

    def start_robot(self, name: str, pause_s: float = 0.0, url: str = "") -> None:
        """Start a robot with a new session; the last of several has a small spool.

        That one never waits for room; any other pauses ``pause_s`` after 16 steps.
        """
        greedy = name == self.greedy
        orders = RobotOrders(
            name=name,
            spool=self.spool_of(name),
            state=self.state,
            url=url or f"http://127.0.0.1:{self.proxy.port}",
            token=self.tokens[name],
            spool_bytes=300_000 if greedy else 2**40,
            backlog=0 if greedy else 150,
            pause_s=0.4 if greedy else pause_s,
        )
        self.start(name, "benchmarks.chaos.robot", orders.model_dump_json())

    def start(self, who: str, module: str, *args: str) -> subprocess.Popen[bytes]:
        """Start a module as a process, with a log of its own."""
        inside = ["ip", "netns", "exec", self.inside[who]] if who in self.inside else []
        with (self.state / "logs" / who).open("ab") as log:
            self.processes[who] = subprocess.Popen(
                [*inside, sys.executable, "-m", module, *args],
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        return self.processes[who]

    def signal(self, who: str, number: signal.Signals) -> None:
        """Send a signal to a process."""
        self.processes[who].send_signal(number)

    def kill(self, who: str) -> None:
        """SIGKILL a process and wait for its end."""
        if who == "reader":
            self.note_reader()
        process = self.processes[who]
        process.kill()
        process.wait(_PATIENCE_S)

    def end(self, who: str) -> None:
        """SIGTERM a process, which has to end in order."""
        process = self.processes[who]
        ready = self.state / f"{who}.ready"
        if who in self.names:  # it may still be starting, deaf to orders
            wait_until(
                lambda: ready.exists() and ready.read_text() == str(process.pid), f"{who} to start"
            )
        process.terminate()
        try:
            code = process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Stuck(f"{who} did not end after SIGTERM: {self.tail(who)}") from None
        if code:
            raise Stuck(f"{who} ended with {code} after SIGTERM: {self.tail(who)}")

    def check_alive(self, ended: Container[str] = ()) -> None:
        """Raise where a process ended that nobody ended."""
        for who, process in self.processes.items():
            if who not in ended and process.poll() is not None:
                raise Stuck(f"{who} ended by itself with {process.returncode}: {self.tail(who)}")

    def tail(self, who: str) -> str:
        """Give the end of a process's log."""
        return (self.state / "logs" / who).read_text(errors="replace")[-2000:]

    def close(self) -> None:
        """Kill what still runs and unmount the disks."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(_PATIENCE_S)
        self.proxy.close()
        for disk in (self.trainer, *self.spools):
            disk.close()

    # ------------------------------------------------------------------ what faults need

    def write_tokens(self, names: list[str]) -> None:
        """Let these robots in, and no other."""
        hashes = {n: hashlib.sha256(self.tokens[n].encode()).hexdigest() for n in names}
        draft = self.tokens_file.with_suffix(".new")
        draft.write_text("".join(f"{n} {h}\n" for n, h in hashes.items()))
        draft.replace(self.tokens_file)

    def on_disk(self, disk: Disk) -> list[str]:
        """List the processes that have files open on a disk."""
        if disk is self.trainer:
            return ["service", "reader"]
        return [name for name in self.names if self.disk_of(name) is disk]

    def restart(self, who: str) -> None:
        """Start a process again after it was killed."""
        if who == "service":
            self.start_service()
        elif who == "reader":
            self.start_reader()
        else:
            self.start_robot(who)

    def remount(self, disk: Disk) -> None:
        """Kill what uses a disk, mount it anew, and start everything again."""
        users = self.on_disk(disk)
        for who in users:
            self.kill(who)
        disk.unmount()
        disk.mount()
        for who in users:
            self.restart(who)

    def note_reader(self) -> None:
        """Remember how many steps the reader has seen; it must never see fewer later."""
        path = self.state / "reader.progress"
        if path.exists():
            self.reader_seen = max(self.reader_seen, ProgressFile(path).read().put)

    def sessions(self) -> list[tuple[str, str, Path]]:
        """List robot, session and progress file of every session so far."""
        found = []
        for path in sorted(self.state.glob("rover*.progress")):
            robot, session, _ = path.name.split(".")
            found.append((robot, session, path))
        return found
