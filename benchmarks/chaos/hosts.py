"""Robots on hosts of their own, behind links that lose, delay, swallow and are cut.

``python -m benchmarks.chaos.hosts`` makes a network namespace for the trainer and one for each
robot, joined by a link that this process plays: it reads every packet from a TUN device and gives
it to the other end later, or never.  So the kernel's real TCP meets real loss, without netem.
It needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import tyro
from pydantic import BaseModel

from benchmarks.chaos.account import Account, check_sent, check_session, check_store
from benchmarks.chaos.faults import spool_session
from benchmarks.chaos.world import World, wait_until
from wm_core.store.ledger import LEDGER_NAME, Ledger

_NEW_NET = 0x40000000
_TUN, _NO_HEADER, _SET = 0x0001, 0x1000, 0x400454CA


class Hosts(BaseModel):
    """Stream from several hosts over links that misbehave, one way after another."""

    root: Path = Path("runs/hosts")  #: folder for all of it; it must not exist yet
    robots: int = 2
    phase_s: float = 10.0
    seed: int = 0


class Link:
    """Carries packets between two devices, as its fields say at the moment.

    Args:
        ends: files of the two TUN devices.
        rng: draws which packets are lost.
    """

    def __init__(self, ends: tuple[int, int], rng: random.Random) -> None:
        self.loss, self.delay_s, self.swallows = 0.0, 0.0, False
        self.carried = self.lost = 0
        self._ends, self._rng, self._ending = ends, rng, False
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        other = {self._ends[0]: self._ends[1], self._ends[1]: self._ends[0]}
        queue: list[tuple[float, int, int, bytes]] = []
        while not self._ending:
            wait_s = min(0.05, max(0.0, queue[0][0] - time.monotonic())) if queue else 0.05
            for end in select.select(self._ends, [], [], wait_s)[0]:
                with contextlib.suppress(OSError):  # the link is down
                    packet = os.read(end, 65536)
                    if self.swallows or self._rng.random() < self.loss:
                        self.lost += 1
                        continue
                    self.carried += 1
                    due_s = time.monotonic() + self.delay_s
                    heapq.heappush(queue, (due_s, self.carried, other[end], packet))
            while queue and queue[0][0] <= time.monotonic():
                with contextlib.suppress(OSError):
                    os.write(queue[0][2], queue[0][3])
                heapq.heappop(queue)

    def close(self) -> None:
        """End the thread."""
        self._ending = True
        self._thread.join(10.0)


def in_namespace(name: str, device: str, address: str, peer: str) -> int:
    """Make a TUN device in a namespace, with an address; returns its file."""
    made: list[int] = []

    def work() -> None:  # a thread enters the namespace, and ends there
        with open(f"/run/netns/{name}") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEW_NET):
                raise OSError(ctypes.get_errno(), f"cannot enter {name}")
        handle = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(handle, _SET, struct.pack("16sH", device.encode(), _TUN | _NO_HEADER))
        made.append(handle)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    _do("ip", "-n", name, "addr", "add", address, "peer", peer, "dev", device)
    _do("ip", "-n", name, "link", "set", device, "up", "mtu", "1500")
    return made[0]


def run(settings: Hosts) -> tuple[Account, dict[str, list[int]]]:
    """Go through every kind of link; returns the account, and chunks stored by phase."""
    rng = random.Random(settings.seed)
    world = World(settings.root, None, settings.robots, 0.0, rng)
    world.greedy = ""
    tag = f"wm{os.getpid()}"
    names = [f"{tag}-t", *(f"{tag}-{n}" for n in range(settings.robots))]
    links, phases = [], {}
    try:
        for name in names:
            _do("ip", "netns", "add", name)
            _do("ip", "-n", name, "link", "set", "lo", "up")
        for n in range(settings.robots):
            ours, theirs = f"10.99.{n}.1", f"10.99.{n}.2"
            ends = (
                in_namespace(names[0], f"robot{n}", ours, theirs),
                in_namespace(names[1 + n], "trainer", theirs, ours),
            )
            links.append(Link(ends, rng))
        world.inside = dict(zip(["service", *world.names], names, strict=True))
        world.start_service("--host", "0.0.0.0", "--insecure")
        for n, robot in enumerate(world.names):
            world.start_robot(robot, pause_s=0.3, url=f"http://10.99.{n}.1:{world.port}")
        account = Account()
        for phase in ("clean", "loss and delay", "black hole", "cut", "clean again"):
            _set(phase, links, names)
            if phase != "clean":
                time.sleep(settings.phase_s)
            if phase not in ("black hole", "cut"):  # there has to be progress
                before = _stored(world)
                wait_until(lambda before=before: _stored(world) >= before + 20, phase)
            phases[phase] = [_stored(world), sum(k.carried for k in links)]
            phases[phase].append(sum(k.lost for k in links))
            world.check_alive()
        for robot in world.names:
            world.end(robot)
        world.end("service")
        stored = check_store(world.store, account)
        for robot, session, progress in world.sessions():
            kept = spool_session(world, robot, session)
            check_sent(world.store, kept, set(), account)
            check_session(kept, progress, stored[robot, session], {}, account)
        return account, phases
    finally:
        world.close()
        for link in links:
            link.close()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def _set(phase: str, links: list[Link], names: list[str]) -> None:
    for n, link in enumerate(links):
        link.loss = 0.02 if phase == "loss and delay" else 0.0
        link.delay_s = 0.1 if phase == "loss and delay" else 0.0
        link.swallows = phase == "black hole"
        _do("ip", "-n", names[1 + n], "link", "set", "trainer", "down" if phase == "cut" else "up")


def _stored(world: World) -> int:
    ledger = Ledger(world.store / LEDGER_NAME)
    try:
        return ledger.counts()["chunks"]
    finally:
        ledger.close()


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


if __name__ == "__main__":
    found, stored_by = run(tyro.cli(Hosts, prog="python -m benchmarks.chaos.hosts"))
    for name, (chunks, carried, lost) in stored_by.items():
        print(f"{name}: {chunks} chunks stored, {carried} packets carried, {lost} lost")
    print(found.model_dump_json(indent=1))
    sys.exit(bool(found.faults))
